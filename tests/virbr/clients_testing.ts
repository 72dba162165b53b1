/** Namespaces of a test's own behind a network, without addresses; and a resolver outside for them. */
import { Buffer } from "node:buffer";
import * as packets from "dns-packet";
import { TapBackend } from "@virtio/net/tap";
import { Virbr, type VirbrOptions } from "@virtio/virbr";
import { denoOutside } from "@virtio/virbr/outside/deno";
import { TestNamespace } from "../../packages/net/backends/tap_testing.ts";

/** A namespace, and its card. */
export interface Station {
  readonly namespace: TestNamespace;
  /** The card's MAC address. */
  readonly mac: string;
}

/** The name of the card in each namespace. */
export const CARD = "tap0";

/** Runs a test with namespaces that are on a network by cable only. */
export async function withStations(
  count: number,
  options: VirbrOptions,
  run: (net: Virbr, stations: readonly Station[], folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const net = new Virbr({ outside: { ...denoOutside(), networks: () => [] }, ...options });
  const taps: TapBackend[] = [];
  const stations: Station[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const namespace = await TestNamespace.make();
      const mac = `52:54:00:00:01:0${i}`;
      stations.push({ namespace, mac });
      const tap = TapBackend.open({ name: CARD, namespace: namespace.path });
      taps.push(tap);
      net.port({ name: `card${i}` }).plug(tap);
      await namespace.run("ip", "link", "set", CARD, "address", mac);
      await namespace.run("ip", "link", "set", "lo", "up");
      await namespace.run("ip", "link", "set", CARD, "up");
    }
    await run(net, stations, folder);
  } finally {
    await net.close();
    for (const tap of taps) await tap.close();
    for (const { namespace } of stations) await namespace.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs a command of the shell with files of its own where a network's configuration is kept. */
export async function inPrivate(
  { namespace }: Station,
  command: string,
): Promise<{ readonly code: number; readonly said: string }> {
  // Nothing of it is seen outside: the mounts are this process's.
  const { code, stdout, stderr } = await namespace.command(
    ...["unshare", "--mount", "sh", "-c"] as const,
    `mount -t tmpfs none /run; mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd; ${command}`,
  ).output();
  const decoder = new TextDecoder();
  return { code, said: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** What the resolver of `serveNames` has: text for a name, too long for a datagram. */
export const LONG_TEXT: readonly string[] = Array.from(
  { length: 20 },
  (_, i) => `${i} `.padEnd(200, "x"),
);

/** A resolver on the host's loopback, by UDP and TCP. */
export interface Resolver {
  /** For `VirbrOptions.resolvers`. */
  readonly address: string;
  /** Questions by protocol. */
  readonly asked: { udp: number; tcp: number };
  close(): void;
}

function answer(message: Uint8Array, tcp: boolean): Uint8Array {
  // The library reads only this kind of bytes.
  const query = packets.decode(Buffer.from(message));
  const [question] = query.questions ?? [];
  const { name = "", type = "" } = question ?? {};
  const header = { id: query.id, type: "response" as const, questions: query.questions ?? [] };
  const records: Record<string, unknown> = {
    "A www.example.com": { type: "A", name, ttl: 60, data: "203.0.113.7" },
    "AAAA www.example.com": { type: "AAAA", name, ttl: 60, data: "2001:db8::7" },
    "A private.example.com": { type: "A", name, ttl: 60, data: "192.168.122.1" },
    "TXT long.example.com": { type: "TXT", name, ttl: 60, data: [...LONG_TEXT] },
  };
  const record = records[`${type} ${name.toLowerCase()}`];
  const known = Object.keys(records).some((one) => one.endsWith(` ${name.toLowerCase()}`));
  // Recursion available; truncated, or no such name.
  const flags = 0x180 | (known ? 0 : 3);
  const long = type === "TXT" && record !== undefined && !tcp;
  return packets.encode(
    {
      ...header,
      flags: long ? flags | 0x200 : flags,
      answers: record === undefined || long ? [] : [record],
    } as Parameters<typeof packets.encode>[0],
  );
}

/** Starts one. */
export async function serveNames(): Promise<Resolver> {
  const hostname = "127.0.0.1";
  const asked = { udp: 0, tcp: 0 };
  const listener = Deno.listen({ hostname, port: 0 });
  const { port } = listener.addr;
  const socket = await denoOutside().datagrams!({
    version: 4,
    address: hostname,
    port,
    receive: (question, from) => {
      asked.udp++;
      socket.send(answer(question.slice(), false), from.address, from.port);
    },
  });
  const serve = async (connection: Deno.TcpConn): Promise<void> => {
    const into = new Uint8Array(4096);
    let length = 0;
    for (let got; (got = await connection.read(into.subarray(length))) !== null;) {
      length += got;
      const size = into[0]! << 8 | into[1]!;
      if (length < 2 || length < size + 2) continue;
      asked.tcp++;
      const message = answer(into.slice(2, 2 + size), true);
      const framed = new Uint8Array(message.length + 2);
      framed.set([message.length >> 8, message.length & 0xff]);
      framed.set(message, 2);
      for (let at = 0; at < framed.length;) at += await connection.write(framed.subarray(at));
      length = 0;
    }
    connection.close();
  };
  void (async () => {
    for await (const connection of listener) serve(connection).catch(() => {});
  })();
  return {
    address: `${hostname}:${port}`,
    asked,
    close: () => {
      listener.close();
      socket.close();
    },
  };
}
