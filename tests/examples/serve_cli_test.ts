/** serve:blk, serve:net, serve:console and serve:entropy as their users meet them. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { exampleCommand, runExample } from "./testing.ts";

const ignore = Deno.build.os !== "linux";

for (const name of ["blk", "net", "console", "entropy"]) {
  Deno.test(`serve:${name} --help says what there is, and ends with 0`, async () => {
    const { code, out, err } = await runExample(`serve_${name}`, ["--help"]);
    assertEquals([code, err], [0, ""]);
    for (const word of ["--socket PATH", "--packed", "--json", "SIGTERM"]) {
      assertStringIncludes(out, word);
    }
  });
}

for (
  const [name, args, says] of [
    ["blk", [], "--socket"],
    ["blk", ["--socket", "s"], "--image"],
    ["blk", ["--socket", "a", "--socket", "b", "--image", "i"], "once"],
    ["blk", ["--socket", "s", "--image", "i", "--engine", "steam"], "io_uring"],
    ["blk", ["--socket", "s", "--image", "i", "--create", "7"], "whole sectors"],
    ["blk", ["--socket", "s", "--image", "i", "--cpus", "0"], "--in worker"],
    ["blk", ["--socket", "s", "--image", "i", "--in", "worker", "--cpus", "3-1"], "list"],
    ["blk", ["--socket", "s", "--image", "i", "--create", "1M", "--readonly"], "contradict"],
    ["blk", ["--socket", "s", "--nbd", "nbd://h", "--direct"], "--nbd goes without"],
    ["blk", ["--socket", "s", "--nbd", "ftp://h"], "ftp://h"],
    ["net", ["--socket", "s", "--socket", "s"], "twice"],
    ["net", ["--socket", "s", "--mtu", "1"], "576 to 9000"],
    ["console", ["--socket", "s", "--file", "f", "--unix", "u"], "not both"],
    ["console", ["--socket", "s", "--json"], "--file or --unix"],
    ["entropy", ["--socket", "s", "--frobnicate"], "--frobnicate"],
  ] as const
) {
  Deno.test(`serve:${name} ${args.join(" ")} is refused in one sentence`, async () => {
    const { code, out, err } = await runExample(`serve_${name}`, args);
    assertEquals([code, out.replace(/^\{.*\}\n$/, "")], [2, ""]);
    assertMatch(err, new RegExp(`^serve:${name}: [^\n]+\n$`));
    assertStringIncludes(err, says);
  });
}

/** A server, and the lines that it says. */
async function serve(
  name: string,
  args: readonly string[],
): Promise<{ process: Deno.ChildProcess; lines: ReadableStreamDefaultReader<string> }> {
  const process = new Deno.Command(Deno.execPath(), {
    args: exampleCommand(`serve_${name}`, args),
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const lines = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value } = await lines.read();
  assertStringIncludes(value!, '"listening"');
  return { process, lines };
}

Deno.test({
  name: "serve:blk makes an image, keeps others from it and its socket, and ends in good order",
  ignore,
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "vu-" });
    try {
      const image = `${folder}/disk.raw`;
      const socket = `${folder}/disk.sock`;
      for (const place of ["process", "worker-per-queue"]) {
        const { process, lines } = await serve("blk", [
          ...["--socket", socket, "--image", image, "--queues", "2", "--in", place, "--json"],
          // An image that is there stays as it is.
          ...["--create", place === "process" ? "4M" : "8M"],
        ]);
        assertEquals(Deno.statSync(image).size, 4 * 2 ** 20);
        const second = await runExample("serve_blk", ["--socket", `${folder}/b`, "--image", image]);
        assertEquals(second.code, 1);
        assertMatch(second.err, /^serve:blk: [^\n]*disk\.raw[^\n]*\n$/);
        const third = await runExample("serve_entropy", ["--socket", socket]);
        assertEquals(third.code, 1);
        assertMatch(third.err, /^serve:entropy: Another server has [^\n]+\n$/);

        process.kill("SIGTERM");
        assertEquals((await process.status).code, 0);
        let rest = "";
        for (let read; !(read = await lines.read()).done;) rest += read.value;
        const last = JSON.parse(rest.trimEnd().split("\n").at(-1)!);
        assertEquals([last.event, last.ok], ["ended", true]);
        assert(
          ![...Deno.readDirSync(folder)].some(({ name }) => name.endsWith(".sock")),
          "the socket is gone",
        );
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "serve:net and serve:console end in good order, and say what cannot be opened",
  ignore,
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "vu-" });
    try {
      for (
        const [name, args] of [
          ["net", ["--socket", `${folder}/a.sock`, "--socket", `${folder}/b.sock`]],
          ["console", ["--socket", `${folder}/c.sock`, "--unix", `${folder}/end.sock`]],
        ] as const
      ) {
        const { process, lines } = await serve(name, [...args, "--json"]);
        process.kill("SIGINT");
        assertEquals((await process.status).code, 0);
        await lines.cancel();
      }
      assertEquals([...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".sock")), []);
      const { code, err } = await runExample("serve_console", [
        ...["--socket", `${folder}/c`, "--file", "/nowhere/log"],
      ]);
      assertEquals(code, 1);
      assertMatch(err, /^serve:console: \/nowhere\/log [^\n]+\n$/);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
