import { assert, assertEquals, assertRejects } from "@std/assert";
import { linuxOutside } from "./deno_linux.ts";
import { OutsideError, type OutsidePeer } from "./outside.ts";

const ignore = Deno.build.os !== "linux";

/** Lets those end who wait beside the event loop. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 20));
}

Deno.test({
  name: "datagrams of Linux come from where they were sent, and tell when nobody is there",
  ignore,
  fn: async () => {
    const outside = linuxOutside();
    for (const [version, address] of [[4, "127.0.0.1"], [6, "::1"]] as const) {
      const got = Promise.withResolvers<[number[], OutsidePeer]>();
      const failed = Promise.withResolvers<[string, OutsidePeer]>();
      const server = await outside.datagrams!({
        version,
        address,
        receive: (bytes, from) => server.send(bytes, from.address, from.port),
      });
      const client = await outside.datagrams!({
        version,
        receive: (bytes, from) => got.resolve([[...bytes], from]),
        problem: (problem, to) => failed.resolve([problem, to]),
      });
      client.send(new Uint8Array([1, 2, 3]), address, server.port);
      assertEquals(await got.promise, [[1, 2, 3], { address, port: server.port }]);
      const { port } = server;
      const taken = await assertRejects(
        () => outside.datagrams!({ version, address, port, receive() {} }),
        OutsideError,
      );
      assertEquals(taken.problem, "taken");
      server.close();
      await settle();
      client.send(new Uint8Array([4]), address, port);
      assertEquals(await failed.promise, ["refused", { address, port }]);
      client.close();
      client.close();
      await settle();
    }
  },
});

Deno.test({
  name: "a datagram that the system does not send is told of",
  ignore,
  fn: async () => {
    const told: unknown[] = [];
    const socket = await linuxOutside().datagrams!({
      version: 4,
      receive() {},
      problem: (problem, to) => told.push([problem, to]),
    });
    // Nobody may send to all without having said so.
    const to = { address: "255.255.255.255", port: 9 };
    socket.send(new Uint8Array(1), to.address, to.port);
    assertEquals(told, [["prohibited", to]]);
    socket.close();
    await settle();
  },
});

Deno.test({
  name: "an echo of the host's own loopback, where this process may ask for one",
  ignore,
  fn: async () => {
    const outside = linuxOutside();
    for (const address of ["127.0.0.1", "::1"]) {
      try {
        const time = await outside.echo!(address, new Uint8Array([1, 2, 3, 4]), 2000);
        assert(time !== null && time >= 0 && time < 2000, `${address}: ${time}`);
      } catch (error) {
        assert(error instanceof OutsideError && error.problem === "prohibited", String(error));
      }
      await settle();
    }
  },
});
