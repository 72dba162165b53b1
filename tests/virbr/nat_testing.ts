/** A namespace of a test's own as a guest of a network, whose outside is the host's loopback. */
import { assertEquals } from "@std/assert";
import { TapBackend } from "@virtio/net/tap";
import { type Outside, type OutsidePeer, Virbr, type VirbrOptions } from "@virtio/virbr";
import { linuxOutside } from "@virtio/virbr/outside/linux";
import { TestNamespace } from "../../packages/net/backends/tap_testing.ts";

/** An address of the outside, which is the host's loopback in truth. */
export const OUTSIDE_IP = "198.51.100.7";
/** The guest's address. */
export const GUEST_IP = "192.168.122.5";

/** What a test has. */
export interface GuestWorld {
  readonly net: Virbr;
  readonly namespace: TestNamespace;
  readonly tap: TapBackend;
}

/** The sockets of Linux; one address of the outside is loopback, so that no test needs more than that. */
export function loopbackOutside(): Outside {
  const outside = linuxOutside();
  const real = (address: string): string => address === OUTSIDE_IP ? "127.0.0.1" : address;
  const seen = (peer: OutsidePeer): OutsidePeer =>
    peer.address === "127.0.0.1" ? { ...peer, address: OUTSIDE_IP } : peer;
  return {
    ...outside,
    networks: () => [],
    resolvers: () => Promise.resolve([]),
    connect: (address, port, signal) => outside.connect(real(address), port, signal),
    echo: (address, data, timeout) => outside.echo!(real(address), data, timeout),
    async datagrams(options) {
      const { address } = options;
      const socket = await outside.datagrams!({
        ...options,
        receive: (bytes, from) => options.receive(bytes, address === undefined ? seen(from) : from),
        problem: (problem, to) => options.problem?.(problem, seen(to)),
      });
      return {
        address: socket.address,
        port: socket.port,
        send: (bytes, to, port) => socket.send(bytes, real(to), port),
        close: () => socket.close(),
      };
    },
  };
}

/** Runs a test with a namespace behind a network, and sees to it that nothing is left. */
export async function withGuest(
  options: VirbrOptions,
  run: (world: GuestWorld) => Promise<void>,
): Promise<void> {
  const namespace = await TestNamespace.make();
  const net = new Virbr({ outside: loopbackOutside(), ...options });
  const tap = TapBackend.open({ name: "tap0", namespace: namespace.path });
  try {
    net.port({ name: "tap" }).plug(tap);
    await namespace.run("ip", "link", "set", "tap0", "mtu", `${options.mtu ?? 1500}`);
    await namespace.up("tap0", GUEST_IP);
    await namespace.run("ip", "route", "add", "default", "via", "192.168.122.1");
    await run({ net, namespace, tap });
    assertEquals([tap.counters.malformed, tap.counters.overruns], [0, 0]);
  } finally {
    await net.close();
    await tap.close();
    await namespace.close();
  }
}

/** Waits until all flows are over. @throws If they are not, within some seconds. */
export async function nothingLeft(net: Virbr): Promise<void> {
  const flows = (): number[] => {
    const { flows, tcp } = net.stats;
    return [flows.tcp, flows.udp, tcp.connections - tcp.timeWait];
  };
  for (let i = 0; i < 100 && flows().some((each) => each > 0); i++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assertEquals(flows(), [0, 0, 0]);
}

/** A program of Deno's in the namespace. @returns What it wrote. */
export async function program(
  namespace: TestNamespace,
  code: string,
): Promise<string> {
  return await namespace.run(Deno.execPath(), "eval", "-q", code);
}
