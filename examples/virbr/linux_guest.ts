/** The example's run with two stock Linux guests in v86. */
import type { Device } from "@virtio/device";
import { Guest } from "../guest/guest.ts";
import { readCard } from "../net/figures.ts";
import { bootFiles } from "../shared/boot_files.ts";
import { Checks, type Outcome, type Progress, RunError } from "../shared/run.ts";
import { attach, type Attached, seatName } from "../shared/seat.ts";
import type { Figures } from "./figures.ts";
import { Live } from "./live.ts";
import type { Options } from "./options.ts";
import {
  checkEnd,
  fetchForward,
  makeWorld,
  type Member,
  networkFigures,
  visit,
  type Visitor,
  WEB_PORT,
} from "./world.ts";

/** What udhcpc runs when something changes. */
const DHCP_SCRIPT = `#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface scope global
ip addr add $ip/$mask dev $interface
ip link set $interface mtu \${mtu:-1500}
ip route add default via $router
echo "search $search" > /etc/resolv.conf
for d in $dns; do echo "nameserver $d" >> /etc/resolv.conf; done
echo "$ip $router" > /lease
`;

/** Boots the guests and has them visit. */
export async function runLinux(options: Options, progress: Progress): Promise<Outcome<Figures>> {
  const files = await bootFiles(progress, options.kernel);
  await using world = await makeWorld(options);
  const start = performance.now();
  const guests: Guest[] = [];
  try {
    progress.step("booting Linux in v86, then once more from its memory");
    const machine = { shared: options.in !== "process" };
    guests.push(await Guest.boot({ ...files, machine }));
    guests.push(await Guest.restore(await guests[0]!.saveState(), { machine }));
    using live = new Live(world.net, progress);
    live.step(`both take commands; each gets a network card on ${seatName(options)}`);
    const attached = await Promise.all(
      guests.map((guest, i) => plugIn(guest, world.members[i]!, options)),
    );
    const bootMs = performance.now() - start;
    const checks = new Checks();
    live.step("they ask for addresses");
    const timeout = { timeout: 60_000 + options.megabytes * 20_000 };
    const visitors = await Promise.all(
      guests.map((guest, i) => makeVisitor(guest, world.members[i]!.name, timeout)),
    );
    await visit(world, visitors as [Visitor, Visitor], (line) => live.step(line), checks);
    const { address, port } = world.forward;
    live.step(`guest1 serves a page of its own: http://${address}:${port}/page`);
    const made = (await guests[0]!.check(
      `mkdir -p /www && dd if=/dev/urandom of=/www/page bs=64k count=${world.size / 65536} ` +
        `2>/dev/null && httpd -p ${WEB_PORT} -h /www && md5sum /www/page`,
      timeout,
    )).slice(0, 32);
    checks.add(
      "this machine fetches it through the forwarded port",
      await fetchForward(world, "/page") === made,
    );
    const { output } = await guests[1]!.run(
      `wget -q -O - http://guest1:${WEB_PORT}/page | md5sum`,
      timeout,
    );
    checks.add("guest2 fetches it directly, by name", output.slice(0, 32) === made);
    for (const { errors } of attached) checks.addErrors(errors);
    await checkEnd(world, checks);
    const workMs = performance.now() - start - bootMs;
    const cards = world.members.map((member, i) =>
      readCard(member.name, member.counted(), guests[i]!.machine.exits.total)
    );
    const figures = { cards, ...networkFigures(world) };
    return { guest: "linux", checks: checks.list, figures, bootMs, workMs };
  } finally {
    for (const guest of guests) await guest.destroy();
  }
}

/** Gives a guest its card. */
async function plugIn(guest: Guest, member: Member, options: Options): Promise<Attached<Device>> {
  const attached = attach(guest.machine, options, member.card);
  if (options.transport === "pci") await guest.rescanPci();
  await guest.check("modprobe -a virtio_pci virtio_mmio virtio_net");
  const found = await guest.run(
    "for i in $(seq 50); do [ -e /sys/class/net/eth0 ] && exit 0; usleep 100000; done; exit 1",
  );
  if (found.status !== 0) throw new RunError(`${member.name} found no network card`);
  await guest.check(
    `mkdir -p /etc; hostname ${member.name}; ip link set lo up; ip link set eth0 up`,
  );
  await guest.check(`cat > /dhcp.sh <<'EOF'\n${DHCP_SCRIPT}EOF\nchmod 755 /dhcp.sh`);
  return attached;
}

/** Gets an address. */
async function makeVisitor(
  guest: Guest,
  name: string,
  timeout: { readonly timeout: number },
): Promise<Visitor> {
  const { status, output } = await guest.run(
    `udhcpc -i eth0 -n -q -t 5 -s /dhcp.sh -x hostname:${name} -O search -O mtu >/dev/null 2>&1; cat /lease`,
    { timeout: 60_000 },
  );
  if (status !== 0) throw new RunError(`${name} got no address: ${output}`);
  const [address, gateway] = output.trim().split(" ") as [string, string];
  return {
    name,
    address,
    gateway,
    async reaches(other) {
      const { output } = await guest.run(`ping -c 3 -i 0.2 -W 5 ${other}`);
      return / 0% packet loss/.test(output);
    },
    async resolve(wanted) {
      const { output } = await guest.run(`nslookup -type=a ${wanted} ${gateway}`);
      const answers = output.split(/^Name:/m).slice(1).join("");
      return [...answers.matchAll(/^Address(?: \d+)?: ([\d.]+)$/gm)].map((match) => match[1]!);
    },
    async fetch(port) {
      const file = `/tmp/page${port}`;
      const { status, output } = await guest.run(
        `wget -q -O ${file} http://${gateway}:${port}/ && md5sum ${file}; s=$?; rm -f ${file}; exit $s`,
        timeout,
      );
      return status === 0 ? output.slice(0, 32) : null;
    },
  };
}
