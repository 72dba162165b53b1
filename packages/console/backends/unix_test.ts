import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ConsoleDevice, receiveQueue } from "../mod.ts";
import { RawConsoleDriver, turns } from "../testing.ts";
import { UnixConsole } from "./unix.ts";

async function inFolder(test: (path: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await test(`${folder}/socket`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 2000 && !done(); i++) await new Promise((again) => setTimeout(again, 1));
  assert(done(), "it never came");
}

async function read(from: Deno.Conn, count: number): Promise<string> {
  const bytes = new Uint8Array(count);
  let at = 0;
  while (at < count) {
    const more = await from.read(bytes.subarray(at));
    if (more === null) break;
    at += more;
  }
  return new TextDecoder().decode(bytes.subarray(0, at));
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A device with a port at a socket, and a driver that has it open. */
async function running(backend: UnixConsole) {
  const device = new ConsoleDevice({ ports: [{ backend, name: "x", inputBuffer: 16 }] });
  const driver = await RawConsoleDriver.open(device);
  driver.ready();
  await driver.portReady(0);
  return { device, driver, port: device.port(0)! };
}

Deno.test("unix console: who connects to the listener is the host's side; the port opens and closes with it", async () => {
  await inFolder(async (path) => {
    const socket = await UnixConsole.listen(path);
    const { device, driver, port } = await running(socket);
    assertEquals([port.hostOpen, socket.isConnected], [false, false]);
    driver.output(0, "nobody");
    assertEquals(device.stats.outputDiscarded, 6);
    for (let round = 0; round < 2; round++) {
      const peer = await Deno.connect({ transport: "unix", path });
      await socket.connected();
      assertEquals(port.hostOpen, true);
      driver.output(0, `hello ${round}`, [3]);
      assertEquals(await read(peer, 7), `hello ${round}`);
      await peer.write(encode("typed"));
      driver.provide(receiveQueue(0), 64);
      await until(() => driver.received[0]!.length > 0);
      assertEquals(driver.input(0), "typed");
      peer.close();
      await until(() => !port.hostOpen);
    }
    await socket.close();
    await socket.close();
    await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  });
});

Deno.test("unix console: back-pressure in both directions, and a megabyte arrives whole", async () => {
  await inFolder(async (path) => {
    const socket = await UnixConsole.listen(path, { outputBuffer: 1000 });
    const { driver } = await running(socket);
    const peer = await Deno.connect({ transport: "unix", path });
    await socket.connected();
    const total = 2 ** 20;
    const bytes = new Uint8Array(total);
    for (let i = 0; i < total; i++) bytes[i] = i * 7 ^ i >> 8;
    driver.send(1, bytes, [100_000, 1]);
    await turns(20);
    assertEquals(driver.used[1], 0, "the peer reads nothing, so the guest waits");
    const got = new Uint8Array(total);
    for (let at = 0; at < total;) at += (await peer.read(got.subarray(at)))!;
    assert(got.every((byte, i) => byte === bytes[i]));
    await until(() => driver.used[1] === 1);
    // The other way: 16 bytes wait in the port, the rest in the socket.
    const sending = (async () => {
      for (let at = 0; at < total;) at += await peer.write(bytes.subarray(at));
    })();
    const back: Uint8Array[] = [];
    let count = 0;
    while (count < total) {
      for (let i = 0; i < 32; i++) driver.provide(0, 4096);
      await until(() => driver.received[0]!.length > 0);
      await turns(1);
      for (const part of driver.received[0]!.splice(0)) {
        back.push(part);
        count += part.length;
      }
      while (driver.queue(0).free < 34) {
        await turns(1);
        for (const part of driver.received[0]!.splice(0)) {
          back.push(part);
          count += part.length;
        }
        if (count === total) break;
      }
    }
    await sending;
    let at = 0;
    for (const part of back) {
      assert(part.every((byte, i) => byte === bytes[at + i]));
      at += part.length;
    }
    assertEquals(at, total);
    peer.close();
    await socket.close();
  });
});

Deno.test("unix console: the client connects when somebody listens, and again when the peer went away", async () => {
  await inFolder(async (path) => {
    const errors: unknown[] = [];
    const socket = UnixConsole.connect(path, { retry: 1, onError: (error) => errors.push(error) });
    const { driver, port } = await running(socket);
    assertEquals(port.hostOpen, false);
    const listener = Deno.listen({ transport: "unix", path });
    for (let round = 0; round < 3; round++) {
      const peer = await listener.accept();
      await until(() => port.hostOpen);
      driver.output(0, "hi");
      assertEquals(await read(peer, 2), "hi");
      peer.close();
      await until(() => !port.hostOpen || socket.isConnected);
    }
    listener.close();
    await socket.close();
    assertEquals(port.hostOpen, false);
  });
});

Deno.test("unix console: a socket that nobody listens at is replaced; one that is served, or another file, is not", async () => {
  await inFolder(async (path) => {
    const old = Deno.listen({ transport: "unix", path });
    await assertRejects(() => UnixConsole.listen(path), Deno.errors.AddrInUse);
    old.close();
    await Deno.remove(path).catch(() => {});
    await Deno.writeTextFile(path, "mine");
    await assertRejects(() => UnixConsole.listen(path), Deno.errors.AddrInUse);
    assertEquals(await Deno.readTextFile(path), "mine");
    await Deno.remove(path);
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "eval",
        `Deno.listen({ transport: "unix", path: ${
          JSON.stringify(path)
        } }); Deno.kill(Deno.pid, "SIGKILL")`,
      ],
    });
    await child.output();
    assert((await Deno.lstat(path)).isSocket, "a program that was killed left it");
    const socket = await UnixConsole.listen(path);
    const { port } = await running(socket);
    const peer = await Deno.connect({ transport: "unix", path });
    await socket.connected();
    assertEquals(port.hostOpen, true);
    // A port that is removed has no connection.
    peer.close();
    await socket.close();
    assertThrows(() => UnixConsole.connect(path, { outputBuffer: 0 }), RangeError);
  });
});

Deno.test("unix console: without a port who connects waits; a port that is removed ends the connection", async () => {
  await inFolder(async (path) => {
    const socket = await UnixConsole.listen(path);
    const peer = await Deno.connect({ transport: "unix", path });
    await turns(5);
    assertEquals(socket.isConnected, false);
    const { device } = await running(socket);
    await socket.connected();
    device.removePort(0);
    assertEquals(await peer.read(new Uint8Array(1)), null);
    peer.close();
    await socket.close();
  });
});
