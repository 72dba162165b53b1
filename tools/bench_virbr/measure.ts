/** The measurements, each of one contestant, a second or two long, to be run alternately. */
import type { Contestant } from "./contestants.ts";
import { SERVER } from "./world.ts";

/** Ports of the servers outside. */
export const IPERF_PORT = 5201;
/** Answers each connection with a byte. */
export const ECHO_PORT = 5202;

/** One thing that is measured. */
export interface Case {
  /** As it is called in tables. */
  readonly name: string;
  /** Of the value. */
  readonly unit: string;
  /** Whether more is better. */
  readonly more: boolean;
  /** Measures once; null where the contestant cannot. */
  run(contestant: Contestant): Promise<number | null>;
}

/** Attempts of a run for which the server had no time, as it had not seen the end of the one before. */
const TRIES = 20;

/** Bits a second that iperf3 counts at the receiver. */
async function iperf({ name, guest }: Contestant, ...args: string[]): Promise<number> {
  for (let tries = 1;; tries++) {
    const { stdout } = await guest.command(
      "iperf3",
      ...["--json", "--client", SERVER, "--port", `${IPERF_PORT}`, "--time", "2", "--omit", "1"],
      ...args,
    ).output();
    const { error, end } = JSON.parse(new TextDecoder().decode(stdout));
    if (error === undefined) return end.sum_received.bits_per_second / 1e9;
    if (tries === TRIES || !/busy|reset by peer/.test(error)) {
      throw new Error(`iperf3 by ${name}: ${error}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Connects one after the other, each with a byte back, for a second. */
const CONNECTIONS = `
const until = performance.now() + 1000;
let count = 0;
const byte = new Uint8Array(1);
while (performance.now() < until) {
  const socket = await Deno.connect({ hostname: "${SERVER}", port: ${ECHO_PORT} });
  await socket.read(byte);
  socket.close();
  count++;
}
console.log(count / (performance.now() - until + 1000) * 1000);
`;

/** All of them. */
export const CASES: readonly Case[] = [
  { name: "TCP, sent", unit: "Gbit/s", more: true, run: (one) => iperf(one) },
  { name: "TCP, received", unit: "Gbit/s", more: true, run: (one) => iperf(one, "--reverse") },
  {
    name: "TCP, 8 streams received",
    unit: "Gbit/s",
    more: true,
    run: (one) => iperf(one, "--reverse", "--parallel", "8"),
  },
  {
    name: "connections",
    unit: "per second",
    more: true,
    run: async ({ guest }) => Number(await guest.run(Deno.execPath(), "eval", "-q", CONNECTIONS)),
  },
  {
    name: "ping of the gateway",
    unit: "ms",
    more: false,
    run: async ({ guest, gateway }) => {
      if (gateway === null) return null;
      const text = await guest.run("ping", "-q", "-i", "0.01", "-c", "50", gateway);
      return Number(/= [\d.]+\/([\d.]+)\//.exec(text)![1]);
    },
  },
];

/** A server for `CONNECTIONS`, to be run outside. */
export const ECHO_SERVER = `
const listener = Deno.listen({ hostname: "${SERVER}", port: ${ECHO_PORT} });
console.log("ready");
for await (const socket of listener) {
  socket.write(new Uint8Array(1)).catch(() => {}).finally(() => socket.close());
}
`;
