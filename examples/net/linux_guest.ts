/** The example's run with two stock Linux guests in v86. */
import type { Device } from "@virtio/device";
import { Guest } from "../guest/guest.ts";
import { bootFiles } from "../shared/boot_files.ts";
import { md5, randomBytes } from "../shared/bytes.ts";
import { Checks, type Outcome, type Progress, RunError } from "../shared/run.ts";
import { attach, type Attached, seatName } from "../shared/seat.ts";
import { type Figures, readCard } from "./figures.ts";
import { fetchHttp, serveHttp } from "./host/http.ts";
import { checkCapture, HOST_IP, makeNetwork, type Network, type Place, PREFIX } from "./network.ts";
import type { Options } from "./options.ts";

const MIB = 2 ** 20;

/** A guest on the network. */
interface Member {
  readonly place: Place;
  readonly guest: Guest;
  readonly attached: Attached<Device>;
}

/** Boots the guests and has them talk. */
export async function runLinux(options: Options, progress: Progress): Promise<Outcome<Figures>> {
  const files = await bootFiles(progress, options.kernel);
  using network = await makeNetwork(options);
  progress.step(`booting Linux in v86, then once more from its memory`);
  const start = performance.now();
  const guests: Guest[] = [];
  try {
    // Workers see a guest's memory only if it is shared.
    const machine = { shared: options.in !== "process" };
    guests.push(await Guest.boot({ ...files, machine }));
    // The second guest is the first one as it was before it had a network card.
    guests.push(await Guest.restore(await guests[0]!.saveState(), { machine }));
    progress.step(`both take commands; each gets a network card on ${seatName(options)}`);
    const members = await Promise.all(
      guests.map((guest, i) => join(guest, network.places[i]!, options)),
    );
    const bootMs = performance.now() - start;
    const checks = new Checks();
    for (const member of members) await checkCard(member, options, checks);
    await checkPings(members, network, checks, progress);
    await checkFiles(members, network, options, checks, progress);
    for (const { attached } of members) checks.addErrors(attached.errors);
    checkCapture(network, checks);
    const workMs = performance.now() - start - bootMs;
    const cards = members.map(({ place, guest }) =>
      readCard(place.name, place.counted(), guest.machine.exits.total)
    );
    return { guest: "linux", checks: checks.list, figures: { cards }, bootMs, workMs };
  } finally {
    for (const guest of guests) await guest.destroy();
  }
}

/** Gives a guest its card. */
async function join(guest: Guest, place: Place, options: Options): Promise<Member> {
  const attached = attach(guest.machine, options, place.card);
  if (options.transport === "pci") await guest.rescanPci();
  await guest.check("modprobe -a virtio_pci virtio_mmio virtio_net");
  const found = await guest.run(
    "for i in $(seq 50); do [ -e /sys/class/net/eth0 ] && exit 0; usleep 100000; done; exit 1",
  );
  if (found.status !== 0) {
    const log = await guest.run("dmesg | grep -i -e virtio -e net | tail -n 5");
    throw new RunError(`${place.name} found no network card. It says: ${log.output}`);
  }
  await guest.check(
    `hostname ${place.name.replace(" ", "")}; ip addr add ${place.ip}/${PREFIX} dev eth0; ` +
      "ip link set lo up; ip link set eth0 up",
  );
  return { place, guest, attached };
}

async function checkCard(
  { place, guest }: Member,
  options: Options,
  checks: Checks,
): Promise<void> {
  const [driver, mac, mtu, bits] = (await guest.check(
    "cd /sys/class/net/eth0; basename $(readlink -f device/driver); cat address mtu device/features",
  )).split("\n");
  checks.add(
    `${place.name} drives eth0 with its own ${driver}, on ${options.ring} rings`,
    driver === "virtio_net" && (bits![34] === "1") === (options.ring === "packed"),
  );
  checks.add(
    `it has the address ${mac} and an MTU of ${mtu}`,
    mac === place.mac && Number(mtu) === options.mtu,
  );
}

async function checkPings(
  [one, two]: Member[],
  { host }: Network,
  checks: Checks,
  progress: Progress,
): Promise<void> {
  progress.step("pings, small and large");
  const ping = async (from: Member, ip: string, size: number): Promise<boolean> => {
    const { output } = await from.guest.run(`ping -c 3 -i 0.2 -W 5 -s ${size} ${ip}`);
    return / 0% packet loss/.test(output);
  };
  checks.add("guest 1 reaches guest 2", await ping(one!, two!.place.ip, 56));
  checks.add(
    "guest 2 reaches guest 1 with packets of 8000 bytes",
    await ping(two!, one!.place.ip, 8000),
  );
  checks.add("guest 1 reaches the host", await ping(one!, HOST_IP, 56));
  const times = [await host.ping(one!.place.ip), await host.ping(two!.place.ip, 400)];
  checks.add("the host reaches both", times.every((time) => time !== null));
}

async function checkFiles(
  [one, two]: Member[],
  { host }: Network,
  options: Options,
  checks: Checks,
  progress: Progress,
): Promise<void> {
  const size = options.megabytes * MIB;
  const timeout = { timeout: 60_000 + options.megabytes * 20_000 };
  progress.step(`guest 1 serves a file of ${options.megabytes} MiB`);
  // MD5, since the sum is made by an emulated processor; nobody here is to be kept from forging it.
  const made = (await one!.guest.check(
    `mkdir -p /www && dd if=/dev/urandom of=/www/file bs=64k count=${
      size / 65536
    } 2>/dev/null && ` +
      "httpd -h /www && md5sum /www/file",
    timeout,
  )).slice(0, 32);
  progress.step("guest 2 fetches it, then the host does");
  const fetched = await two!.guest.run(
    `wget -q -O /tmp/file http://${one!.place.ip}/file && md5sum /tmp/file; rm -f /tmp/file`,
    timeout,
  );
  checks.add("guest 2 fetches what guest 1 serves", fetched.output.slice(0, 32) === made);
  const here = await fetchHttp(host, one!.place.ip, "/file");
  checks.add("the host fetches the same", md5(here) === made && here.length === size);
  progress.step("the host serves another one to both");
  const file = randomBytes(size);
  serveHttp(host, new Map([["/file", file]]));
  const both = await Promise.all(
    [one!, two!].map(({ guest }) =>
      guest.run(`wget -q -O - http://${HOST_IP}/file | md5sum`, timeout)
    ),
  );
  checks.add(
    "both guests fetch at once what the host serves",
    both.every(({ output }) => output.slice(0, 32) === md5(file)),
  );
  checks.add("no checksum was wrong on the way to the host", host.damaged === 0);
}
