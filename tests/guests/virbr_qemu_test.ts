/**
 * A Linux in QEMU with two cards on networks that two servers run, as a user starts them: one plugged in by `-netdev stream`
 * (serve:virbr), one by vhost-user (serve:net --virbr). Where there is no QEMU this is ignored, but not in CI.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { bootQemu } from "../../examples/guest/qemu.ts";
import { md5, randomBytes } from "../../examples/shared/bytes.ts";
import { appears, qemuWorld } from "./vhost_user_work.ts";

const world = await qemuWorld();
const root = new URL("../..", import.meta.url).pathname;
const MIB = 2 ** 20;
const STREAM_MAC = "52:54:00:00:02:01";
const VHOST_MAC = "52:54:00:00:02:02";

/** What udhcpc runs; the second card's network is not the way to everywhere. */
const DHCP_SCRIPT = `#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface scope global
ip addr add $ip/$mask dev $interface
echo "$ip $router $dns" > /lease.$interface
`;

interface Event {
  readonly event: string;
  // deno-lint-ignore no-explicit-any -- whatever a server says
  readonly [name: string]: any;
}

/** A server as its user starts it. */
class Server {
  readonly events: Event[] = [];
  readonly #process: Deno.ChildProcess;
  readonly #listening = Promise.withResolvers<Event>();
  readonly #output: Promise<void>;

  constructor(name: string, args: readonly string[]) {
    this.#process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", `${root}examples/${name}.ts`, "--json", ...args],
      cwd: root,
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#listening.promise.catch(() => {});
    this.#output = this.#read();
  }

  get listening(): Promise<Event> {
    return this.#listening.promise;
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const text of this.#process.stdout.pipeThrough(new TextDecoderStream() as never)) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const event: Event = JSON.parse(line);
        this.events.push(event);
        if (event.event === "listening") this.#listening.resolve(event);
      }
    }
    this.#listening.reject(new Error("the server ended"));
  }

  /** Asks it to end. @returns Its status. */
  async end(): Promise<number> {
    try {
      this.#process.kill("SIGTERM");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // it has ended by itself
    }
    const { code } = await this.#process.status;
    await this.#output;
    return code;
  }
}

Deno.test({
  name: "a Linux in QEMU gets addresses by -netdev stream and by vhost-user, and both ways out",
  ignore: world === null,
  async fn() {
    const folder = await Deno.makeTempDir();
    await Deno.mkdir(`${folder}/guest`);
    const page = randomBytes(8 * MIB);
    const web = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      () => new Response(page),
    );
    const leases = `${folder}/leases.json`;
    const left: Deno.DirEntry[] = [];
    let kept = "";
    const stream = new Server("serve_virbr", [
      ...["--socket", `${folder}/stream.sock`, "--host-loopback", "--leases", leases],
      ...["--subnet", "10.81.0.0/24", "--lease", `${STREAM_MAC}=10.81.0.80,web`],
      ...["--forward", "127.0.0.1:0=web:80"],
    ]);
    const vhost = new Server("serve_net", [
      ...["--socket", `${folder}/vhost.sock`, "--virbr", "--host-loopback", "--packed"],
      ...["--subnet", "10.82.0.0/24"],
    ]);
    try {
      const { forwards } = await stream.listening;
      await vhost.listening;
      await using machine = await bootQemu({
        files: world!.files,
        folder: `${folder}/guest`,
        devices: [
          ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/stream.sock`],
          ...["-device", `virtio-net-pci,netdev=n0,mac=${STREAM_MAC},romfile=`],
          ...["-chardev", `socket,id=c1,path=${folder}/vhost.sock`],
          ...["-netdev", "vhost-user,id=n1,chardev=c1"],
          // Without KVM, QEMU 7.2 dies of a vhost-user network card with MSI-X.
          ...["-device", `virtio-net-pci,netdev=n1,mac=${VHOST_MAC},romfile=,vectors=0,packed=on`],
        ],
      });
      const { guest } = machine;
      await appears(guest, "virtio_pci virtio_net", "/sys/class/net/eth1");
      await guest.check(`cat > /dhcp.sh <<'EOF'\n${DHCP_SCRIPT}EOF\nchmod 755 /dhcp.sh`);
      // Which of them is which, the bus decides.
      const macs = (await guest.check("cat /sys/class/net/eth?/address")).split("\n");
      assertEquals([...macs].sort(), [STREAM_MAC, VHOST_MAC]);
      const card = (mac: string): string => `eth${macs.indexOf(mac)}`;
      for (
        const [mac, address, gateway, name] of [
          [STREAM_MAC, "10.81.0.80", "10.81.0.1", "web"],
          [VHOST_MAC, "10.82.0.2", "10.82.0.1", "other"],
        ] as const
      ) {
        await guest.check(
          `ip link set ${card(mac)} up; udhcpc -i ${
            card(mac)
          } -n -q -t 5 -s /dhcp.sh -x hostname:other >/dev/null 2>&1`,
          { timeout: 60_000 },
        );
        assertEquals(
          await guest.check(`cat /lease.${card(mac)}`),
          `${address} ${gateway} ${gateway}`,
        );
        const { output: ping } = await guest.run(`ping -c 3 -i 0.2 -W 5 -s 4000 ${gateway}`);
        assertMatch(ping, / 0% packet loss/);
        const { output: names } = await guest.run(`nslookup ${name}.internal ${gateway}`);
        assertMatch(names.split(/^Name:/m)[1] ?? names, new RegExp(`${address}\\b`));
        const { output: sum } = await guest.run(
          `wget -q -O - http://${gateway}:${web.addr.port}/ | md5sum`,
          { timeout: 120_000 },
        );
        assertEquals(sum.slice(0, 32), md5(page));
      }
      const made = (await guest.check(
        "mkdir -p /www && dd if=/dev/urandom of=/www/file bs=64k count=64 2>/dev/null && " +
          "httpd -h /www && md5sum /www/file",
      )).slice(0, 32);
      const response = await fetch(`http://127.0.0.1:${forwards[0].port}/file`);
      assertEquals(md5(new Uint8Array(await response.arrayBuffer())), made);
      await guest.shutdown();
      assertEquals([await stream.end(), await vhost.end()], [0, 0]);
    } finally {
      await stream.end();
      await vhost.end();
      await web.shutdown();
      left.push(...Deno.readDirSync(folder));
      kept = await Deno.readTextFile(leases).catch(() => "");
      await Deno.remove(folder, { recursive: true });
    }
    assertEquals(left.filter(({ name }) => /sock/.test(name)), []);
    const { leases: entries } = JSON.parse(kept);
    assertEquals(entries.map(({ address }: { address: string }) => address), ["10.81.0.80"]);
    const { ok, stats } = stream.events.at(-1)!;
    assertEquals([ok, stats.flows.total, stats.flows.tcp], [true, 2, 0]);
    const lease = stream.events.find(({ event }) => event === "lease");
    assertEquals(lease?.["address"], "10.81.0.80");
    assert(stream.events.some(({ event, guests }) => event === "status" && guests.length === 1));
  },
});
