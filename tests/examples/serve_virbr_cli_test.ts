/** serve:virbr as its user meets it: what it prints, its exit status, and that it ends when it is asked to. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { exampleCommand, runExample } from "./testing.ts";

Deno.test("serve:virbr --help says what there is and ends with 0", async () => {
  const { code, out, err } = await runExample("serve_virbr", ["--help"]);
  assertEquals([code, err], [0, ""]);
  for (const word of ["--socket PATH", "--tap", "--forward", "--leases", "--mode", "-netdev"]) {
    assertStringIncludes(out, word);
  }
});

for (
  const [args, says] of [
    [[], "--socket PATH says where"],
    [["--socket", "x", "--frobnicate"], "--frobnicate"],
    [["--socket", "x", "--mode", "bridge"], "nat or isolated or guests"],
    [["--socket", "x", "--forward", "80"], "--forward is as"],
    [["--socket", "x", "--forward", "99999=web:80"], "--forward is as"],
    [["--socket", "x", "--lease", "web"], "--lease is as"],
    [["--socket", "x", "--name", "printer"], "--name is as"],
    [["--socket", "x", "--mtu", "100"], "576 to 65520"],
  ] as const
) {
  Deno.test(`serve:virbr ${args.join(" ")} is refused in one sentence`, async () => {
    const { code, out, err } = await runExample("serve_virbr", args);
    assertEquals([code, out], [2, ""]);
    assertMatch(err, /^serve:virbr: [^\n]+\n$/);
    assertStringIncludes(err, says);
  });
}

Deno.test("serve:virbr says what cannot be had, and leaves nothing behind", async () => {
  const folder = await Deno.makeTempDir();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  try {
    for (
      const [args, says] of [
        [["--socket", `${folder}/no/such.sock`], "such.sock"],
        [["--socket", `${folder}/s`, "--subnet", "1.2.3"], "1.2.3"],
        [["--socket", `${folder}/s`, "--forward", `${listener.addr.port}=web:80`], "in use"],
      ] as const
    ) {
      const { code, err } = await runExample("serve_virbr", args);
      assertEquals(code, 1, err);
      assertMatch(err, /^serve:virbr: [^\n]+\n$/);
      assertStringIncludes(err, says);
      assertEquals([...Deno.readDirSync(folder)], []);
    }
  } finally {
    listener.close();
    await Deno.remove(folder, { recursive: true });
  }
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`serve:virbr --json tells what happens, and ends with 0 on ${signal}`, async () => {
    const folder = await Deno.makeTempDir();
    const child = new Deno.Command(Deno.execPath(), {
      args: exampleCommand("serve_virbr", [
        ...["--json", "--socket", `${folder}/net.sock`, "--subnet", "10.83.0.0/24"],
        ...["--forward", "127.0.0.1:0=web:80", "--mode", "isolated"],
      ]),
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    try {
      // deno-lint-ignore no-explicit-any -- whatever it says
      const events: any[] = [];
      let rest = "";
      for await (const text of child.stdout.pipeThrough(new TextDecoderStream() as never)) {
        const lines = (rest + text).split("\n");
        rest = lines.pop()!;
        for (const line of lines) events.push(JSON.parse(line));
        if (events.length >= 2 && events.at(-1).event === "status") child.kill(signal);
      }
      assertEquals((await child.status).code, 0);
      const [listening] = events;
      assertEquals([listening.event, listening.subnet, listening.gateway], [
        ...["listening", "10.83.0.0/24", "10.83.0.1"],
      ]);
      assert(listening.forwards[0].port > 0);
      assertEquals(events.slice(-2).map(({ event }) => event), ["ending", "ended"]);
      assertEquals(events.at(-1).ok, true);
      assertEquals([...Deno.readDirSync(folder)], []);
    } finally {
      await child.status;
      await Deno.remove(folder, { recursive: true });
    }
  });
}
