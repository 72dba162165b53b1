/** A server of iperf3's protocol on a station: takes what a client sends by TCP, and tells how much came. */
import type { Station } from "../../examples/net/host/station.ts";
import type { StationConnection } from "../../examples/net/host/connection.ts";

/** What server and client tell each other, a byte each. */
const State = {
  testStart: 1,
  testRunning: 2,
  testEnd: 4,
  paramExchange: 9,
  createStreams: 10,
  exchangeResults: 13,
  displayResults: 14,
} as const;
const PORT = 5201;
/** What names a test; each of its connections begins with it. */
const COOKIE_SIZE = 37;

function joined(one: Uint8Array, other: Uint8Array): Uint8Array {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}

/** One test: a control connection, and streams. */
class Test {
  readonly #control: StationConnection;
  readonly #streams: number[] = [];
  #expected = 1;
  /** What to do with the next message of the control connection. */
  #next: "parameters" | "end" | "results" | "done" = "parameters";
  #rest: Uint8Array = new Uint8Array(0);

  constructor(control: StationConnection) {
    this.#control = control;
    this.#tell(State.paramExchange);
  }

  /** Another connection of the test. @returns What takes its data. */
  stream(): (data: Uint8Array) => void {
    const index = this.#streams.push(0) - 1;
    if (this.#streams.length === this.#expected) this.#tell(State.testStart, State.testRunning);
    return (data) => void (this.#streams[index]! += data.length);
  }

  /** What the client says on the control connection. */
  heard(data: Uint8Array): void {
    this.#rest = joined(this.#rest, data);
    for (;;) {
      if (this.#next === "end") {
        const [state] = this.#rest;
        if (state === undefined) return;
        this.#rest = this.#rest.slice(1);
        if (state === State.testEnd) {
          this.#next = "results";
          this.#tell(State.exchangeResults);
        }
        continue;
      }
      if (this.#next === "done" || this.#rest.length < 4) return;
      const length = new DataView(this.#rest.buffer, this.#rest.byteOffset).getUint32(0);
      if (this.#rest.length < 4 + length) return;
      const message = JSON.parse(new TextDecoder().decode(this.#rest.subarray(4, 4 + length)));
      this.#rest = this.#rest.slice(4 + length);
      if (this.#next === "parameters") {
        this.#expected = message.parallel ?? 1;
        this.#next = "end";
        this.#tell(State.createStreams);
      } else {
        this.#next = "done";
        this.#sendResults();
        this.#tell(State.displayResults);
      }
    }
  }

  #sendResults(): void {
    // The client numbers its streams 1, 3, 4 and so on.
    const streams = this.#streams.map((bytes, i) => ({
      id: i === 0 ? 1 : i + 2,
      bytes,
      retransmits: -1,
      jitter: 0,
      errors: 0,
      packets: 0,
    }));
    const cpu = { cpu_util_total: 0, cpu_util_user: 0, cpu_util_system: 0 };
    const text = JSON.stringify({ ...cpu, sender_has_retransmits: -1, streams });
    const bytes = new TextEncoder().encode(text);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, bytes.length);
    this.#control.write(joined(length, bytes));
  }

  #tell(...states: number[]): void {
    this.#control.write(new Uint8Array(states));
  }
}

/** Serves iperf3 clients on a station, at the usual port. */
export function serveIperf3(station: Station): void {
  const tests = new Map<string, Test>();
  station.listen(PORT, (connection) => {
    let cookie = new Uint8Array(0) as Uint8Array;
    let taken: ((data: Uint8Array) => void) | null = null;
    connection.onEnd = () => connection.end();
    connection.onData = (data) => {
      if (taken !== null) return taken(data);
      cookie = joined(cookie, data);
      if (cookie.length < COOKIE_SIZE) return;
      const name = new TextDecoder().decode(cookie.subarray(0, COOKIE_SIZE));
      const test = tests.get(name);
      if (test === undefined) {
        const made = new Test(connection);
        tests.set(name, made);
        taken = (data) => made.heard(data);
      } else {
        taken = test.stream();
      }
      if (cookie.length > COOKIE_SIZE) taken(cookie.slice(COOKIE_SIZE));
    };
  });
}
