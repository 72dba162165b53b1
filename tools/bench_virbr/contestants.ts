/** What joins a network namespace to the host's sockets: ours, and others that do it in user space. */
import type { TestNamespace } from "../../packages/net/backends/tap_testing.ts";
import { waitForAddress, type World } from "./world.ts";

/** One of them, at work for a guest. */
export interface Contestant {
  /** As it is called in tables. */
  readonly name: string;
  /** The namespace behind it. */
  readonly guest: TestNamespace;
  /** Address of its gateway, which answers a ping; null if it does not (pasta needs rights for that that it gives up). */
  readonly gateway: string | null;
  /** The program, for its use of the processor. */
  readonly pid: number;
}

const TAP = "tap0";

/** Starts one for a guest of its own, with this MTU. */
export type Start = (world: World, mtu: number) => Promise<Contestant>;

/** slirp4netns, on libslirp. */
export const startSlirp: Start = async (world, mtu) => {
  const guest = await world.guest();
  const child = await world.start(
    world.host,
    /Starting slirp|received tapfd/,
    "slirp4netns",
    ...["--configure", `--mtu=${mtu}`, "--netns-type=path", guest.path, TAP],
  );
  await waitForAddress(guest, TAP);
  return { name: "slirp4netns", guest, gateway: "10.0.2.2", pid: child.pid };
};

/** pasta, of passt. */
export const startPasta: Start = async (world, mtu) => {
  const guest = await world.guest();
  const child = await world.start(
    world.host,
    null,
    "pasta",
    ...["--foreground", "--config-net", "--ns-ifname", TAP, "--mtu", `${mtu}`, "--no-map-gw"],
    ...["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--runas", "0:0"],
    ...["--netns-only", "--netns", await world.mount(guest)],
  );
  await waitForAddress(guest, TAP);
  return { name: "pasta", guest, gateway: null, pid: child.pid };
};

/** Ours: `tools/bench_virbr/ours.ts` in a process of its own, a tap as the only port. */
export const startOurs: Start = async (world, mtu) => {
  const guest = await world.guest();
  const child = await world.start(
    world.host,
    /ready/,
    Deno.execPath(),
    ...["run", "-A", "--quiet", new URL("./ours.ts", import.meta.url).pathname],
    ...[guest.path, TAP, `${mtu}`],
  );
  await guest.run("ip", "link", "set", TAP, "mtu", `${mtu}`);
  await guest.run("ip", "address", "add", "192.168.122.2/24", "dev", TAP);
  await guest.run("ip", "link", "set", TAP, "up");
  await guest.run("ip", "route", "add", "default", "via", "192.168.122.1");
  return { name: "virbr", guest, gateway: "192.168.122.1", pid: child.pid };
};
