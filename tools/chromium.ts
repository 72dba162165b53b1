/** Finds a Chromium for tests, or installs Debian's. */

const NAMES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function run(command: string, args: string[]): Promise<boolean> {
  const { success } = await new Deno.Command(command, {
    args,
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).output().catch(() => ({ success: false }));
  return success;
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
    const install = async () =>
      await run("apt-get", ["install", "-y", "-q", "--no-install-recommends", "chromium"]);
    if (await install() || await run("apt-get", ["update", "-q"]) && await install()) {
      for (const path of NAMES) if (await exists(path)) return path;
    }
    if (Deno.env.has("CI")) throw new Error("Chromium cannot be installed");
    console.error("TESTS WITH A BROWSER ARE SKIPPED: Chromium is not here and cannot be installed");
    return null;
  })();
}
