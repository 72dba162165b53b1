/** Runs a network alone: sockets and taps are its ports. */
import { StreamServer } from "@virtio/net/stream";
import { TapBackend } from "@virtio/net/tap";
import { Virbr } from "@virtio/virbr";
import type { Progress } from "../shared/run.ts";
import { Live } from "../virbr/live.ts";
import type { VirbrServeOptions } from "./virbr_options.ts";

/** Milliseconds between two lines of JSON. */
const INTERVAL = 1000;

/** What is told: as an event with data, or as a line for people. */
export type Tell = (event: string, what: Record<string, unknown>, line: string) => void;

/** The network as plain data. */
export function report(net: Virbr): Record<string, unknown> {
  return {
    subnet: net.subnet,
    gateway: net.gateway,
    guests: net.guests,
    leases: net.leases,
    forwards: net.forwards.map(({ protocol, address, port, guest, guestPort }) => ({
      ...{ protocol, address, port, guest, guestPort },
    })),
    ports: net.ports.map(({ name, stats }) => ({ name, ...stats })),
    stats: net.stats,
  };
}

/** The first name of a socket's port that is free: who comes back has the share of whoever was there. */
function freeName(net: Virbr): string {
  const taken = new Set(net.ports.map(({ name }) => name));
  let number = 0;
  while (taken.has(`socket${number}`)) number++;
  return `socket${number}`;
}

/** Tells what happens on a network. */
export function tellEvents(net: Virbr, tell: Tell): void {
  net.onEvent = (event) => {
    const { type, ...what } = event;
    const line = {
      guest: () => `${event.mac} was heard`,
      gone: () => `${event.mac} is gone`,
      lease: () => `${event.mac} has the lease of ${"address" in event ? event.address : ""}`,
      released: () => `${event.mac} gave ${"address" in event ? event.address : ""} back`,
    }[type]();
    tell(type, what, line);
  };
}

/**
 * Runs it until it is asked to end.
 *
 * @param until Resolves with the reason.
 */
export async function serveVirbr(
  options: VirbrServeOptions,
  progress: Progress,
  until: Promise<string>,
): Promise<void> {
  const { json, sockets } = options;
  let live: Live | null = null;
  const tell: Tell = (event, what, line) => {
    if (json) console.log(JSON.stringify({ event, ...what }));
    else (live ?? progress).step(line);
  };
  const trouble = (error: unknown): void => {
    const message = error instanceof Error ? error.message : String(error);
    tell("error", { error: message }, `trouble: ${message}`);
  };
  const net = new Virbr({ ...options.network, onError: trouble });
  const servers: StreamServer[] = [];
  const taps: TapBackend[] = [];
  let timer: ReturnType<typeof setInterval> | undefined;
  try {
    tellEvents(net, tell);
    await net.ready;
    for (const name of options.taps) {
      const tap = TapBackend.open({ name, onError: trouble });
      taps.push(tap);
      net.port({ name }).plug(tap);
    }
    for (const path of sockets) {
      const server = await StreamServer.listen({ path }, (peer) => {
        const port = net.port({ name: freeName(net) });
        port.plug(peer);
        void peer.ended.then(() => port.close());
      }, { onError: trouble });
      servers.push(server);
    }
    if (net.clash !== null) {
      tell(
        "clash",
        { network: net.clash },
        `this machine is in ${net.clash} itself: another subnet`,
      );
    }
    const where = [...sockets, ...taps.map(({ name }) => `the tap ${name}`)].join(", ");
    tell("listening", { sockets, ...report(net) }, `${net.subnet} is at ${where}`);
    if (json) {
      timer = setInterval(() => {
        console.log(JSON.stringify({ event: "status", ...report(net) }));
      }, INTERVAL);
    } else live = new Live(net, progress);
    const why = await until;
    live?.[Symbol.dispose]();
    live = null;
    tell("ending", { why }, `${why}: the network ends`);
  } finally {
    clearInterval(timer);
    live?.[Symbol.dispose]();
    net.onEvent = undefined;
    for (const server of servers) await server.close();
    for (const tap of taps) await tap.close();
    await net.close();
  }
  const { flows } = net.stats;
  tell("ended", { ok: true, stats: net.stats }, `ended after ${flows.total} flows`);
}
