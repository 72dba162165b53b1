/** Finds a Chromium for tests, or installs Debian's. */
import { installPackages } from "./debian.ts";

const NAMES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

let found: Promise<string | null> | undefined;

/**
 * Where Chromium is. Where there is none it is installed, if this process may do that.
 *
 * @returns Null if it cannot be had, which is said loudly; in CI that is an error.
 */
export function chromiumPath(): Promise<string | null> {
  return found ??= (async () => {
    for (const path of NAMES) if (await exists(path)) return path;
    await installPackages(["chromium"]);
    for (const path of NAMES) if (await exists(path)) return path;
    if (Deno.env.has("CI")) throw new Error("Chromium cannot be installed");
    console.error("TESTS WITH A BROWSER ARE SKIPPED: Chromium is not here and cannot be installed");
    return null;
  })();
}
