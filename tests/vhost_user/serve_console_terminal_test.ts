/** serve:console on a terminal of its own: keys go to the guest, and the terminal is given back as it was. */
import { assert, assertEquals } from "@std/assert";
import { ConsoleDriver, type ConsoleDriverPort } from "@virtio/console/driver";
import { DeviceId } from "@virtio/device";
import { FrontEndMemory, VhostUserTransport } from "@virtio/vhost-user/driver";
import { DmaPool } from "@virtio/vring/driver";
import { OnTerminal } from "../examples/terminal.ts";

const MIB = 2 ** 20;

const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits until something is so. */
async function until(what: string, check: () => boolean): Promise<void> {
  for (let i = 0; !check(); i++) {
    assert(i < 1000, `waited in vain: ${what}`);
    await pause(20);
  }
}

const exists = (path: string): boolean => {
  try {
    return Deno.lstatSync(path).isSocket === true;
  } catch {
    return false;
  }
};

/** The guest: a driver of ours, and what came to it. */
async function guestAt(socket: string): Promise<{
  readonly port: ConsoleDriverPort;
  readonly text: () => string;
  close(): Promise<void>;
}> {
  const memory = FrontEndMemory.allocate(MIB);
  const transport = await VhostUserTransport.connect(socket, {
    deviceType: DeviceId.console,
    memory,
  });
  const driver = await ConsoleDriver.open(transport, { dma: new DmaPool(memory.guest, 0, MIB) });
  const port = await driver.waitForPort(0);
  let text = "";
  const decoder = new TextDecoder();
  port.onData = (bytes) => text += decoder.decode(bytes, { stream: true });
  return {
    port,
    text: () => text,
    async close() {
      await driver.close().catch(() => {});
      await transport.close();
      memory.close();
    },
  };
}

for (const how of ["a key", "a signal"]) {
  Deno.test({
    name:
      `serve:console on a terminal: raw mode, its size, a resize, Ctrl-C, and the end by ${how}`,
    ignore: Deno.build.os !== "linux",
    async fn() {
      const folder = await Deno.makeTempDir({ prefix: "vu-" });
      const socket = `${folder}/console.sock`;
      const user = await OnTerminal.start("serve_console", ["--socket", socket]);
      await until("the socket", () => exists(socket));
      const guest = await guestAt(socket);
      try {
        const { port } = guest;
        await until("the size", () => port.size?.cols === 100 && port.size.rows === 30);
        // Nothing of the terminal's own comes between: no echo, no lines, no signal for Ctrl-C, no stop for Ctrl-S.
        await port.write(new TextEncoder().encode("\x1b[1mlogin:\x1b[0m "));
        // deno-lint-ignore no-control-regex -- the text is in bold
        const seen = await user.expect(/\x1b\[1mlogin:\x1b\[0m /);
        assert(!seen.includes("trouble"), seen);
        await user.type("root\r\x03\x13\x11\x1a\x04");
        await until("keys", () => guest.text().length >= 10);
        assertEquals(guest.text(), "root\r\x03\x13\x11\x1a\x04");
        await user.resize(123, 45);
        await until("the new size", () => port.size?.cols === 123 && port.size.rows === 45);
        // Ctrl-A twice is Ctrl-A.
        await user.type("\x01\x01é");
        await until("more keys", () => guest.text().endsWith("é"));
        assertEquals(guest.text().slice(10), "\x01é");
        const much = "0123456789".repeat(20_000);
        // More than the terminal holds: it is written as it is read.
        const writing = port.write(new TextEncoder().encode(`${much}\r\nend`));
        const all = await user.expect(/\r\nend/);
        await writing;
        assert(all.includes(much), "all of it, in its order");
        if (how === "a key") await user.type("\x01x");
        else await signal(socket, "SIGTERM");
        assertEquals(await user.left(), { status: 0, settings: user.before });
        assert(!exists(socket), "the socket goes with the server");
      } finally {
        await guest.close();
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

/** Signals the server of a socket, which `script` and a shell have started. */
async function signal(socket: string, signal: Deno.Signal): Promise<void> {
  for await (const { name } of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const line = await Deno.readTextFile(`/proc/${name}/cmdline`).catch(() => "");
    const words = line.split("\0");
    if (words[1] === "run" && words.includes(socket)) {
      Deno.kill(Number(name), signal);
      return;
    }
  }
  throw new Error("There is no such server");
}
