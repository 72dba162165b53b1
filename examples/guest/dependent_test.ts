import { assert, assertEquals, assertThrows } from "@std/assert";
import { dependentCommand } from "./dependent.ts";

const dependent = import.meta.resolve("./dependent.ts");

for (const family of [false, true]) {
  const whose = family ? "a program and its own" : "a program";
  Deno.test({
    name: `${whose} ends with the one that started it, though that was killed`,
    // Only root can make a PID namespace without more ado.
    ignore: Deno.build.os !== "linux" || (family && Deno.uid() !== 0),
    async fn() {
      const program = family ? "(echo begun; exec sleep 60) & wait" : "echo begun; exec sleep 60";
      const module = `
        import { dependentCommand } from ${JSON.stringify(dependent)};
        const args = ["-c", ${JSON.stringify(program)}];
        dependentCommand("sh", { args, stdin: "null", stdout: "inherit" }, ${family}).spawn();
        setInterval(() => {}, 1000);`;
      const parent = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", `data:text/javascript,${encodeURIComponent(module)}`],
        stdin: "null",
        stdout: "piped",
      }).spawn();
      const reader = parent.stdout.pipeThrough(new TextDecoderStream()).getReader();
      assertEquals((await reader.read()).value, "begun\n");
      const since = performance.now();
      parent.kill("SIGKILL");
      await parent.status;
      // The pipe ends when nobody has it any more.
      assert((await reader.read()).done);
      assert(performance.now() - since < 30_000, "it ended by itself");
    },
  });
}

Deno.test("a program that is not there is told of as ever", () => {
  assertThrows(() => dependentCommand("no-such-program", {}).spawn(), Deno.errors.NotFound);
});
