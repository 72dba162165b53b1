/** The frame of a server: status, JSON, signals, errors and exit status are the same in all of them. */
import { type Device, VIRTIO_F_RING_PACKED } from "@virtio/device";
import {
  VHOST_USER_FEATURES,
  VhostUserServer,
  type VhostUserServerOptions,
} from "@virtio/vhost-user";
import { UsageError } from "../shared/arguments.ts";
import { terminalProgress } from "../shared/program.ts";
import { RunError } from "../shared/run.ts";
import { featureNames, type Figures, type Rates, ratesBetween, statusLine } from "./figures.ts";
import type { ServeOptions } from "./options.ts";

/** A device for one socket. */
export interface Offer {
  readonly socket: string;
  /** Device type (5). */
  readonly type: number;
  readonly device: VhostUserServerOptions["device"];
  /** What it did. */
  figures(): Figures;
  /** Options of the server, beside. */
  readonly server?: Pick<VhostUserServerOptions, "announce">;
}

/** Devices, and what is behind them. */
export interface Open {
  readonly offers: readonly Offer[];
  /** What is served, in a few words. */
  readonly what: string;
  /** Whether this terminal is the guest's: then nothing else is written to it. */
  readonly quiet?: boolean;
  /** Resolves when the user wants it to end, beside signals. */
  readonly ended?: Promise<unknown>;
  /** Makes durable what is behind the devices, and closes it. Nobody uses them any more. */
  close(): void | Promise<void>;
}

/** What makes a server. */
export interface ServerProgram<Options extends ServeOptions> {
  /** Its name, as the user calls it. */
  readonly name: string;
  /** What --help prints. */
  readonly help: string;
  /** Reads the arguments; null if help was asked for. @throws {UsageError} */
  readonly readOptions: (args: string[]) => Options | null;
  /** Opens what is behind the devices, and makes them. */
  readonly open: (options: Options) => Open | Promise<Open>;
  /** Kinds of errors whose message is a sentence for the user. */
  // deno-lint-ignore no-explicit-any -- constructors of any arguments
  readonly errors?: readonly (new (...args: any[]) => Error)[];
}

const INTERVAL = 1000;

/** Tells that something happened: to people a line, to machines an object. */
type Tell = (event: string, what: Record<string, unknown>, line: string) => void;

/** A device that is served, and when it was looked at last. */
interface Watched {
  readonly offer: Offer;
  readonly server: VhostUserServer;
  figures: Figures;
  rates: Rates;
  at: number;
  state: string;
}

/** Resolves with the signal that asks this process to end. */
function endSignal(): Promise<Deno.Signal> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      Deno.addSignalListener(signal, () => resolve(signal));
    }
  });
}

/** Feature bits of rings and transport that a server offers. */
export function vhostFeatures(packed: boolean): bigint {
  return packed ? VHOST_USER_FEATURES : VHOST_USER_FEATURES & ~VIRTIO_F_RING_PACKED;
}

/**
 * Serves with the process's arguments until a signal comes.
 *
 * @returns The exit status: 0 if it ended in good order, 1 if it could not begin, or end so, 2 for a wrong argument.
 */
export async function runServer<Options extends ServeOptions>(
  program: ServerProgram<Options>,
): Promise<number> {
  const progress = terminalProgress();
  const json = Deno.args.includes("--json");
  let quiet = json;
  const tell: Tell = (event, what, line) => {
    if (json) console.log(JSON.stringify({ event, ...what }));
    else if (!quiet) progress.step(line);
  };
  try {
    const options = program.readOptions(Deno.args);
    if (options === null) {
      console.log(program.help);
      return 0;
    }
    const signal = endSignal();
    const open = await program.open(options);
    quiet ||= open.quiet ?? false;
    const watched: Watched[] = [];
    try {
      for (const offer of open.offers) watched.push(listen(offer, options, tell, watched));
      tell("listening", { sockets: options.sockets, what: open.what }, listening(options, open));
      const timer = setInterval(() => {
        for (const one of watched) {
          look(one);
          // Rings go live without a message of their own.
          tellState(one, watched.length > 1 ? `${one.offer.socket}: ` : "", tell);
        }
        if (json) {
          for (const one of watched) console.log(JSON.stringify(report(one)));
        } else if (!quiet) {
          const line = watched.map((one) =>
            (watched.length > 1 ? `${one.offer.socket} ` : "") +
            statusLine(one.offer.type, one.server.status, one.rates)
          ).join("; ");
          if (Deno.stdout.isTerminal()) progress.detail(line);
        }
      }, INTERVAL);
      const why = await Promise.race(open.ended === undefined ? [signal] : [signal, open.ended]);
      clearInterval(timer);
      tell("ending", { why }, `${String(why)}: finishing what is in flight`);
    } finally {
      // Whatever happened: nothing that was begun is left behind.
      await Promise.all(watched.map(({ server }) => server.close()));
      await open.close();
    }
    const totals = watched.map(({ offer }) => ({ socket: offer.socket, ...offer.figures() }));
    const requests = totals.reduce((sum, { requests }) => sum + requests, 0);
    tell("ended", { ok: true, totals }, `ended after ${requests} requests`);
    return 0;
  } catch (error) {
    const kinds = [UsageError, RunError, TypeError, RangeError, ...(program.errors ?? [])];
    const known = kinds.some((kind) => error instanceof kind);
    console.error(known ? `${program.name}: ${(error as Error).message}` : error);
    if (json) {
      const message = (error as Error)?.message ?? String(error);
      console.log(JSON.stringify({ event: "ended", ok: false, error: message }));
    }
    return error instanceof UsageError ? 2 : 1;
  }
}

function listening(options: ServeOptions, { what }: Open): string {
  return `serving ${what} at ${options.sockets.join(", ")}`;
}

function listen(
  offer: Offer,
  options: ServeOptions,
  tell: Tell,
  others: readonly Watched[],
): Watched {
  const where = options.sockets.length > 1 ? `${offer.socket}: ` : "";
  const server = new VhostUserServer({
    ...offer.server,
    socket: offer.socket,
    device: offer.device,
    features: vhostFeatures(options.packed),
    onStatus: (server) => {
      const one = others.find((one) => one.server === server);
      if (one !== undefined) tellState(one, where, tell);
    },
    onError: (error) => {
      tell(
        "error",
        { socket: offer.socket, error: error.message },
        `${where}trouble: ${error.message}`,
      );
    },
  });
  const figures = offer.figures();
  const rates = ratesBetween(figures, figures, 1);
  return { offer, server, figures, rates, at: performance.now(), state: "waiting" };
}

/** Tells of another state, once. */
function tellState(one: Watched, where: string, tell: Tell): void {
  const { state, features, frontEnd } = one.server.status;
  if (one.state === state || state === "closed") return;
  one.state = state;
  const names = featureNames(one.offer.type, features);
  const who = frontEnd === null ? "" : ` to ${frontEnd.name} (${frontEnd.pid})`;
  tell("status", report(one), `${where}${state}${who} ${names.join(" ")}`.trimEnd());
}

function look(one: Watched): void {
  const now = performance.now();
  const figures = one.offer.figures();
  one.rates = ratesBetween(one.figures, figures, now - one.at);
  one.figures = figures;
  one.at = now;
}

function report(one: Watched): Record<string, unknown> {
  const { offer, server, figures, rates } = one;
  const { features, ...status } = server.status;
  return {
    event: "status",
    socket: offer.socket,
    ...status,
    features: featureNames(offer.type, features),
    rates,
    totals: figures,
  };
}

/** The type of a device that is here. */
export function offerOf(
  socket: string,
  device: Device,
  figures: () => Figures,
  server: Offer["server"] = {},
): Offer {
  return { socket, device, type: device.type, figures, server };
}
