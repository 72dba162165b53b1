/** Programs that end with the one that started them, however that ends. */

/** Where a program is that is named as in a shell; null if it is nowhere. */
function find(program: string): string | null {
  const folders = program.includes("/") ? [""] : (Deno.env.get("PATH") ?? "").split(":");
  for (const folder of folders) {
    const path = folder === "" ? program : `${folder}/${program}`;
    try {
      if (Deno.statSync(path).isFile) return path;
    } catch {
      // Not here.
    }
  }
  return null;
}

/**
 * A command whose process the system kills when the thread that started it ends, be it by SIGKILL: guests and daemons of a test
 * that was killed would run for ever. Needs util-linux's setpriv; without it the command is as any other.
 */
export function dependentCommand(program: string, options: Deno.CommandOptions): Deno.Command {
  const { args = [] } = options;
  const path = find(program);
  // What is not there is told by whoever starts it.
  if (path === null || find("setpriv") === null) return new Deno.Command(program, options);
  return new Deno.Command("setpriv", { ...options, args: ["--pdeathsig", "KILL", path, ...args] });
}
