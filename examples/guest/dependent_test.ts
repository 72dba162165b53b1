import { assert, assertThrows } from "@std/assert";
import { dependentCommand } from "./dependent.ts";

Deno.test({
  name: "a program ends with the one that started it, though that was killed",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const module = `
      import { dependentCommand } from ${JSON.stringify(import.meta.resolve("./dependent.ts"))};
      const child = dependentCommand("sleep", { args: ["1000"], stdin: "null", stdout: "null" }).spawn();
      console.log(child.pid);
      setInterval(() => {}, 1000);`;
    const parent = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", `data:text/javascript,${encodeURIComponent(module)}`],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const reader = parent.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const pid = Number((await reader.read()).value);
    const there = (): boolean => {
      try {
        return Deno.readTextFileSync(`/proc/${pid}/comm`) !== "";
      } catch {
        return false;
      }
    };
    assert(pid > 0 && there());
    parent.kill("SIGKILL");
    await parent.status;
    for (let i = 0; i < 500 && there(); i++) await new Promise((again) => setTimeout(again, 10));
    assert(!there(), "it must be gone");
    await reader.cancel();
  },
});

Deno.test("a program that is not there is told of as ever", () => {
  assertThrows(() => dependentCommand("no-such-program", {}).spawn(), Deno.errors.NotFound);
});
