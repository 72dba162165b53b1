/** A stock Linux drives our console device: every transport, both ring formats. */
import { assert, assertEquals } from "@std/assert";
import { ConsoleDevice } from "@virtio/console";
import { MemoryConsole } from "@virtio/console/memory";
import type { Guest } from "../../examples/guest/guest.ts";
import { guestFiles, restoreGuest } from "../../examples/guest/testing.ts";
import { NAME_PORTS } from "../../examples/console/init.ts";
import { Conversation } from "../../examples/console/conversation.ts";
import { randomBytes, sha256 } from "../../examples/shared/bytes.ts";
import { attach, type Seat } from "../../examples/shared/seat.ts";
import { drive, SEATS } from "./seats.ts";

const MIB = 2 ** 20;
const ignore = await guestFiles() === null;

interface World extends AsyncDisposable {
  readonly guest: Guest;
  readonly device: ConsoleDevice;
  readonly terminal: MemoryConsole;
  readonly talk: Conversation;
}

/** A Linux with a getty on our console, which is commanded over its serial line beside it. */
async function start(seat: Seat, ports: Record<string, MemoryConsole>): Promise<World> {
  const terminal = new MemoryConsole();
  const device = new ConsoleDevice({
    ports: [
      { backend: terminal },
      ...Object.entries(ports).map(([name, backend]) => ({ name, backend })),
    ],
    maxPorts: Object.keys(ports).length + 2,
  });
  const guest = await restoreGuest();
  try {
    const { errors } = attach(guest.machine, seat, device);
    await drive(guest, seat, "virtio_console", "/dev/hvc0");
    await guest.check(`
      echo 'root::0:0:root:/:/bin/sh' >/etc/passwd
      cat >/bin/name-ports <<'END'
${NAME_PORTS}END
      chmod 755 /bin/name-ports; name-ports
      (while :; do setsid getty -L 0 hvc0 vt100; done) >/dev/null 2>&1 &`);
    return {
      guest,
      device,
      terminal,
      talk: new Conversation(terminal),
      async [Symbol.asyncDispose]() {
        await guest.destroy();
        assertEquals(errors, []);
        assertEquals(device.stats.controlIgnored, 0);
      },
    };
  } catch (error) {
    await guest.destroy();
    throw error;
  }
}

for (const [name, seat] of SEATS) {
  // Once for each transport in full, so that the suite stays short.
  const megabytes = seat.ring === "split" ? 10 : 1;

  Deno.test({
    name: `Linux has its terminal and its ports on our console, ${name}`,
    ignore,
    fn: async () => {
      const ports = {
        "org.example.agent": new MemoryConsole(),
        log: new MemoryConsole(),
        data: new MemoryConsole({ outputBuffer: (megabytes + 1) * MIB }),
      };
      await using world = await start(seat, ports);
      const { guest, device, talk } = world;
      const bits = await guest.check("cat /sys/class/virtio-ports/vport*p0/device/features");
      assertEquals(bits[34], seat.ring === "packed" ? "1" : "0");

      await talk.logIn(30_000);
      assertEquals((await talk.run("tty")).output, "/dev/hvc0");
      assertEquals((await talk.run("stty size")).output, "25 80");
      for (const [cols, rows] of [[132, 43], [40, 12]] as const) {
        device.port(0)!.resize(cols, rows);
        const { output } = await talk.run(
          `for i in $(seq 20); do [ "$(stty size)" = '${rows} ${cols}' ] && break; usleep 100000; done; stty size`,
        );
        assertEquals(output, `${rows} ${cols}`);
      }
      await talk.type("\x04");
      await talk.expect("login: ");

      // Three ports by name, at once.
      const names = await guest.check("name-ports; ls -1 /dev/virtio-ports");
      assertEquals(names, "data\nlog\norg.example.agent");
      const agent = ports["org.example.agent"];
      await agent.send("question\n");
      await guest.check(
        "cd /dev/virtio-ports; exec 3<>org.example.agent; read -r line <&3; " +
          'echo "answer to $line" >&3; echo logged >log',
      );
      assertEquals(await agent.expect("\n"), "answer to question\n");
      assertEquals(ports.log.takeText(), "logged\n");

      const size = megabytes * MIB;
      const timeout = { timeout: 300_000 };
      const sent = randomBytes(size);
      const sending = ports.data.send(sent);
      await guest.check(`head -c ${size} /dev/virtio-ports/data >/tmp/data`, timeout);
      await sending;
      // The sum of the first part is made there; all of it has to come back as it was sent.
      const sum = await guest.check("head -c 1048576 /tmp/data | sha256sum", timeout);
      assertEquals(sum.slice(0, 64), await sha256(sent.subarray(0, MIB)));
      await guest.check("cat /tmp/data >/dev/virtio-ports/data", timeout);
      assertEquals(ports.data.available, size);
      assertEquals(await sha256(ports.data.takeBytes()), await sha256(sent));

      // One comes and goes.
      const late = new MemoryConsole();
      device.addPort({ name: "late", backend: late });
      const wait = (condition: string): Promise<string> =>
        guest.check(
          `for i in $(seq 50); do name-ports; ${condition} && exit 0; usleep 100000; done; exit 1`,
        );
      await wait("[ -c /dev/virtio-ports/late ]");
      await guest.check("echo hello >/dev/virtio-ports/late");
      assertEquals(late.takeText(), "hello\n");
      // A program that reads from it learns that it is gone.
      await guest.check("(cat </dev/virtio-ports/late; echo over) >/tmp/reader 2>&1 &");
      await late.opened();
      await late.send("last words\n");
      await wait("grep -q words /tmp/reader");
      device.removePort("late");
      await wait("[ ! -e /dev/virtio-ports/late ]");
      await wait("grep -q over /tmp/reader");

      // The other ports and the console go on.
      await guest.check("echo still >/dev/virtio-ports/log");
      assertEquals(ports.log.takeText(), "still\n");
      await talk.type("root\n");
      await talk.expect("# ");
      assertEquals((await talk.run("echo $((6 * 7))")).output, "42");
      assert(device.stats.inputDiscarded === 0 && device.stats.outputDiscarded === 0);
    },
  });
}
