/** Taps in network namespaces of the test's own: the host's real stack at the other end. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { Frame } from "../frame.ts";
import { buildFrame } from "../offload/testing.ts";
import { Offload } from "../sink.ts";
import { StreamBackend, StreamServer } from "./stream.ts";
import { Switch } from "./switch.ts";
import { TapBackend, TapError } from "./tap.ts";
import { readNetHeader, writeNetHeader } from "./tap_header.ts";
import { canTap, TestNamespace, transfer } from "./tap_testing.ts";

const ignore = !await canTap();
const MEGABYTES = 8;

Deno.test("net headers of a tap say what the frame says", () => {
  const u8 = fc.nat(0xff);
  const u16 = fc.nat(0xffff);
  fc.assert(
    fc.property(u8, u8, u16, u16, u16, u16, (flags, gsoType, length, size, start, offset) => {
      const frame = new Frame(100);
      Object.assign(frame, { flags, gsoType, headerLength: length, gsoSize: size });
      Object.assign(frame, { csumStart: start, csumOffset: offset });
      const view = new DataView(new Uint8Array(12).fill(0xaa).buffer);
      writeNetHeader(view, frame);
      assertEquals([...new Uint8Array(view.buffer)], [
        flags,
        gsoType,
        ...[length, size, start, offset, 0].flatMap((value) => [value & 255, value >> 8]),
      ]);
      const back = new Frame(100);
      readNetHeader(view, back);
      const { headerLength, gsoSize, csumStart, csumOffset } = back;
      assertEquals([back.flags, back.gsoType, headerLength, gsoSize, csumStart, csumOffset], [
        flags,
        gsoType,
        length,
        size,
        start,
        offset,
      ]);
    }),
  );
});

async function withNamespaces(
  run: (left: TestNamespace, right: TestNamespace) => Promise<void>,
): Promise<void> {
  const [left, right] = [await TestNamespace.make(), await TestNamespace.make()];
  try {
    await run(left, right);
  } finally {
    await left.close();
    await right.close();
  }
}

/** Runs something as in a runtime whose event loop does not wait for a tap itself. */
function withoutLoop<T>(run: () => T): T {
  const own = Object.getOwnPropertyDescriptor(globalThis, "process")!;
  Object.defineProperty(globalThis, "process", { configurable: true, value: undefined });
  try {
    return run();
  } finally {
    Object.defineProperty(globalThis, "process", own);
  }
}

for (const loop of [true, false]) {
  Deno.test({
    name: `two of the host's network stacks talk through the switch, unsegmented, ${
      loop ? "read by the event loop" : "polled"
    }`,
    ignore,
    fn: async () => {
      await withNamespaces(async (left, right) => {
        const open = (namespace: string) => TapBackend.open({ name: "tap0", namespace });
        const [a, b] = [left, right].map(({ path }) =>
          loop ? open(path) : withoutLoop(() => open(path))
        ) as [TapBackend, TapBackend];
        assert((a.offloads & (Offload.csum | Offload.tso4 | Offload.tso6)) === 7);
        assertEquals([a.linkUp, a.maxMtu], [true, 1500]);
        const network = new Switch();
        network.port({ name: "left" }).plug(a);
        network.port({ name: "right" }).plug(b);
        await left.up("tap0", "192.0.2.1");
        await right.up("tap0", "192.0.2.2");
        await transfer(left, right, "192.0.2.2", 7000, MEGABYTES);
        await transfer(right, left, "192.0.2.1", 7000, MEGABYTES);
        for (const tap of [a, b]) {
          const { gsoIn, gsoOut, framesIn, bytesIn, malformed, overruns } = tap.counters;
          assert(gsoIn > 0 && gsoOut > 0, "frames were not segmented");
          assert(bytesIn >= MEGABYTES << 20 && framesIn > gsoIn);
          assertEquals([malformed, overruns], [0, 0]);
        }
        assert(network.size >= 2);
        await a.close();
        await b.close();
        await a.close();
        assert(!(await left.run("ip", "link")).includes("tap0"), "it goes when it is closed");
      });
    },
  });
}

Deno.test({
  name:
    "two of the host's network stacks talk over a stream: segments and checksums made here are right",
  ignore,
  fn: async () => {
    await withNamespaces(async (left, right) => {
      const a = TapBackend.open({ name: "tap0", namespace: left.path });
      const b = TapBackend.open({ name: "tap0", namespace: right.path });
      const [here, there] = [new Switch(), new Switch()];
      here.port().plug(a);
      there.port().plug(b);
      const server = await StreamServer.listen({ port: 0 }, (peer) => here.port().plug(peer));
      const client = await StreamBackend.connect({ port: server.port });
      there.port().plug(client);
      await left.up("tap0", "192.0.2.1");
      await right.up("tap0", "192.0.2.2");
      await transfer(left, right, "192.0.2.2", 7000, MEGABYTES);
      assert(a.counters.gsoIn > 0, "something was to be segmented");
      assertEquals(b.counters.gsoOut, 0, "and was");
      assert(client.counters.framesIn > client.counters.writes);
      await client.close();
      await server.close();
      await a.close();
      await b.close();
    });
  },
});

Deno.test({
  name: "an interface that is down drops, and one that was removed ends the tap",
  ignore,
  fn: async () => {
    await withNamespaces(async (left) => {
      const errors: TapError[] = [];
      const tap = TapBackend.open({
        name: "tap0",
        namespace: left.path,
        onError: (error) => errors.push(error),
      });
      const changes: boolean[] = [];
      tap.onLinkChange = () => changes.push(tap.linkUp);
      const frame = new Frame().fromBytes(
        buildFrame({ ip: 4, transport: "udp", payload: new Uint8Array(100) }),
      );
      tap.deliver(frame);
      assertEquals([tap.counters.down, tap.counters.framesOut], [1, 0]);
      for (let round = 1; round <= 2; round++) {
        await left.run("ip", "link", "set", "tap0", "up");
        tap.deliver(frame);
        assertEquals([tap.counters.down, tap.counters.framesOut], [round, round]);
        await left.run("ip", "link", "set", "tap0", "down");
        tap.deliver(frame);
      }
      // A header that no system takes.
      await left.run("ip", "link", "set", "tap0", "up");
      frame.gsoType = 77;
      frame.gsoSize = 1;
      tap.deliver(frame);
      assertEquals(tap.counters.malformed, 1);
      frame.plain();
      assertEquals(changes, []);
      await left.run("ip", "link", "delete", "tap0");
      for (let i = 0; i < 1000 && tap.linkUp; i++) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      assertEquals([changes, errors.map(({ problem }) => problem)], [[false], ["gone"]]);
      tap.deliver(frame);
      assertEquals(tap.counters.framesOut, 2);
      await tap.close();
    });
  },
});

Deno.test({
  name: "a tap that cannot be had says what to do",
  ignore,
  fn: async () => {
    await withNamespaces(async (left) => {
      const namespace = left.path;
      const problem = (name: string, path = namespace): string => {
        const error = assertThrows(() => TapBackend.open({ name, namespace: path }), TapError);
        assert(error.message.length > 30);
        return error.problem;
      };
      const tap = TapBackend.open({ name: "tap0", namespace });
      assertEquals(problem("tap0"), "busy");
      await tap.close();
      assertEquals(problem("lo"), "not a tap");
      assertEquals(problem(""), "not a tap");
      assertEquals(problem("sixteen-letters-"), "not a tap");
      assertEquals(problem("tap0", "/proc/0/ns/net"), "missing");
      // The process is where it was.
      assert(
        !(await new Deno.Command("ip", { args: ["link"] }).output().then(({ stdout }) =>
          new TextDecoder().decode(stdout)
        )).includes("tap0"),
      );
    });
  },
});

Deno.test({
  name: "without permission a tap names the permission",
  ignore,
  fn: async () => {
    const module = new URL("./tap.ts", import.meta.url).href;
    const code = `import { TapBackend } from "${module}";
      try { TapBackend.open({ name: "tap0" }); } catch (error) { console.log(error.problem, error.message); }`;
    const file = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(file, code);
    const config = new URL("../../../deno.json", import.meta.url).pathname;
    const deno = [Deno.execPath(), "run", "-q", "--no-check", "--config", config];
    const namespace = await TestNamespace.make();
    try {
      const asked = await namespace.run(deno[0]!, ...deno.slice(1), "--no-prompt", file);
      assert(asked.startsWith("permission ") && asked.includes("--allow-ffi"), asked);
      const weak = ["--bounding-set=-net_admin", "--inh-caps=-net_admin", ...deno, "-A", file];
      const weakly = await namespace.run("setpriv", ...weak);
      assert(weakly.startsWith("permission ") && weakly.includes("CAP_NET_ADMIN"), weakly);
    } finally {
      await namespace.close();
      await Deno.remove(file);
    }
  },
});
