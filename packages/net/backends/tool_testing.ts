/** Programs of the host that tests use. Where one is missing its tests are skipped, but not in CI: there that is a failure. */
import { installPackages } from "../../../tools/debian.ts";

/** Whether a program runs; says so loudly if not. */
export async function hasTool(
  program: string,
  args: readonly string[],
  why: string,
): Promise<boolean> {
  let problem: string;
  try {
    const { success, stderr } = await new Deno.Command(program, {
      args: [...args],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    if (success) return true;
    problem = new TextDecoder().decode(stderr).trim() || `${program} failed`;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    problem = `there is no ${program} on this machine`;
  }
  if (Deno.env.has("CI")) throw new Error(`${why} cannot be tested: ${problem}`);
  console.error(`TESTS OF ${why.toUpperCase()} ARE SKIPPED: ${problem}`);
  return false;
}

/** Has Debian's package with a program installed, if it is missing and this may be done: as root, with apt. */
export async function installTool(program: string, debianPackage: string): Promise<void> {
  const found = await new Deno.Command("sh", { args: ["-c", `command -v ${program}`] }).output();
  if (found.success) return;
  await installPackages([debianPackage]);
}

/** What a program writes to standard output. @throws If it fails. */
export async function run(program: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args, stdin: "null" })
    .output();
  if (!success) {
    throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  }
  return new TextDecoder().decode(stdout);
}
