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
 *
 * @param family Whether the same is to be true of the program's own processes: it is the first of a PID namespace then, where this
 * process may make one. Its process group, not the process, is to be told to end.
 */
export function dependentCommand(
  program: string,
  options: Deno.CommandOptions,
  family = false,
): Deno.Command {
  const path = find(program);
  // What is not there is told by whoever starts it.
  if (path === null || find("setpriv") === null) return new Deno.Command(program, options);
  const apart = family && Deno.uid() === 0 && find("unshare") !== null;
  const args = [
    ...["--pdeathsig", "KILL"],
    ...(apart ? ["unshare", "--pid", "--fork", "--kill-child=KILL"] : []),
    ...[path, ...options.args ?? []],
  ];
  return new Deno.Command("setpriv", { ...options, args });
}
