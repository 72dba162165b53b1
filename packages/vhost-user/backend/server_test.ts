import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { UnixListener, UnixSocket } from "@virtio/linux";
import { Channel } from "../protocol/channel.ts";
import { FrontEndRequest as Request } from "../protocol/messages.ts";
import { EchoDevice, settle, until } from "./front_testing.ts";
import { VhostUserServer } from "./server.ts";

async function inFolder(run: (socket: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await run(`${folder}/s.sock`);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A front end that has got an answer. */
async function meet(channel: Channel): Promise<boolean> {
  channel.request(Request.GET_FEATURES);
  for (let i = 0; i < 500; i++) {
    if (channel.receive() !== null) return true;
    if (channel.ended) return false;
    await settle(2);
  }
  return false;
}

Deno.test("A second server on one socket is refused, and the first goes on", () =>
  inFolder(async (socket) => {
    const states: string[] = [];
    const server = new VhostUserServer({
      socket,
      device: new EchoDevice(),
      onStatus: ({ status }) => states.push(status.state),
    });
    assertThrows(
      () => new VhostUserServer({ socket, device: new EchoDevice() }),
      TypeError,
      "Another server",
    );
    const channel = new Channel(UnixSocket.connect(socket));
    assert(await meet(channel));
    assertEquals(server.status.frontEnd?.pid, Deno.pid);
    assert(server.status.frontEnd!.name !== "");
    channel.close();
    await until(() => server.status.state === "waiting", "the front end to be gone");
    assertEquals(server.status.frontEnd, null);
    await server.close();
    await server.closed;
    assertEquals(states, ["connected", "waiting", "closed"]);
  }));

Deno.test("A socket that a dead server left is replaced; one in use, and a file that is none, are not", () =>
  inFolder(async (socket) => {
    new UnixListener(socket).close();
    const server = new VhostUserServer({ socket, device: new EchoDevice() });
    await server.close();
    await Deno.writeTextFile(socket, "precious");
    assertThrows(
      () => new VhostUserServer({ socket, device: new EchoDevice() }),
      TypeError,
      "no socket",
    );
    assertEquals(await Deno.readTextFile(socket), "precious");
    await Deno.remove(socket);
    const other = new UnixListener(socket);
    assertThrows(
      () => new VhostUserServer({ socket, device: new EchoDevice() }),
      TypeError,
      "listens",
    );
    other.close();
    await Deno.remove(socket);
  }));

Deno.test("One front end at a time: the next has its turn when the first is gone", () =>
  inFolder(async (socket) => {
    const server = new VhostUserServer({ socket, device: new EchoDevice() });
    const first = new Channel(UnixSocket.connect(socket));
    assert(await meet(first));
    const second = new Channel(UnixSocket.connect(socket));
    second.request(Request.GET_FEATURES);
    await settle(20);
    assertEquals(second.receive(), null);
    first.close();
    let answer = second.receive();
    await until(() => (answer ??= second.receive()) !== null, "the second's answer");
    assertEquals(server.status.connections, 2);
    await server.close();
    // A program that another test starts just now may have the descriptor too, for a moment.
    await until(() => second.receive() === null && second.ended, "the end of the connection");
    second.close();
  }));

Deno.test("A server that connects finds a front end that listens, before and after it is there", () =>
  inFolder(async (socket) => {
    const server = new VhostUserServer({ socket, connect: true, device: new EchoDevice() });
    await settle(20);
    const listener = new UnixListener(socket);
    for (let round = 1; round <= 2; round++) {
      let there: UnixSocket | null = null;
      await until(() => (there ??= listener.accept()) !== null, "a connection");
      const channel = new Channel(there!);
      assert(await meet(channel));
      assertEquals(server.status.connections, round);
      channel.close();
    }
    listener.close();
    await server.close();
    await Deno.remove(socket);
  }));

Deno.test("A path that is too long, and options out of range, are refused", async () => {
  const device = new EchoDevice();
  const socket = "x".repeat(120);
  assertThrows(() => new VhostUserServer({ socket, device }), RangeError);
  assertThrows(() => new VhostUserServer({ socket, device, patience: -1 }), RangeError, "patience");
  await assertRejects(() => Deno.stat(`${socket}.lock`), Deno.errors.NotFound);
});
