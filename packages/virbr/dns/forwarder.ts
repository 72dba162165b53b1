import type { Guest } from "../ip/packet.ts";
import { isRebinding, type RebindingRule } from "./rebinding.ts";
import type { DnsStats } from "./server.ts";
import type { OutsidePeer } from "../outside/outside.ts";
import { Tally } from "../tally.ts";
import type { DnsUpstream } from "./upstream.ts";
import { DnsFlag, walk, type Walked } from "./walk.ts";

/** Records of an answer at most. */
const MAX_RECORDS = 1024;
/** Aliases of an answer at most: a longer way is a circle, or meant to be one. */
const MAX_ALIASES = 16;
/** Milliseconds that a resolver has for its answer, by UDP and by TCP. */
const PATIENCE = 2_000;
const PATIENCE_TCP = 5_000;
/** How often resolvers are asked in all for one query. */
const TRIES = 3;
/** Milliseconds after which the host is asked again for its resolvers. */
const FRESH = 30_000;

const SERVER_FAILURE = 2;
const REFUSED = 5;

/** Options of a `Forwarder`. */
export interface ForwarderOptions {
  readonly upstream: DnsUpstream;
  /** Whom to ask; the host's resolvers if there are none. */
  readonly resolvers: readonly OutsidePeer[];
  readonly rebinding: RebindingRule;
  /** Domains whose names may lead anywhere. */
  readonly trusted: readonly string[];
  /** Queries of one port at a time. */
  readonly perGuest: number;
  /** Queries of all. */
  readonly total: number;
}

/** Asks resolvers of the outside. */
export class Forwarder {
  readonly stats: DnsStats = {
    malformed: 0,
    local: 0,
    forwarded: 0,
    failed: 0,
    rebinding: 0,
    refused: 0,
  };
  readonly #options: ForwarderOptions;
  /** By port: a guest with several MAC addresses has no more than one with one. */
  readonly #pending: Tally = new Tally();
  #count = 0;
  #known: readonly OutsidePeer[] | null = null;
  #knownSince = -Infinity;
  readonly #closing: AbortController = new AbortController();

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** Queries that wait for an answer. */
  get pending(): number {
    return this.#count;
  }

  /**
   * Asks.
   *
   * @param message The guest's, which is changed: it goes out with another id.
   * @param name For which it asks; empty if it is a strange one.
   * @returns The answer, with the guest's id, or a code.
   */
  async ask(
    message: Uint8Array,
    query: Walked,
    guest: Guest,
    via: "udp" | "tcp",
    name: string,
  ): Promise<Uint8Array | number> {
    const { port } = guest;
    if (this.#pending.of(port) >= this.#options.perGuest || this.#count >= this.#options.total) {
      this.stats.refused++;
      return SERVER_FAILURE;
    }
    this.#pending.enter(port);
    this.#count++;
    this.stats.forwarded++;
    try {
      const answer = await this.#ask(message, query, via);
      if (answer === null) {
        this.stats.failed++;
        return SERVER_FAILURE;
      }
      if (this.#leadsInside(answer, name)) {
        this.stats.rebinding++;
        return REFUSED;
      }
      answer[0] = query.id >> 8;
      answer[1] = query.id & 0xff;
      return answer;
    } finally {
      this.#count--;
      this.#pending.leave(port);
    }
  }

  /** Ends all queries. */
  close(): void {
    this.#closing.abort(new Error("The network is closed"));
  }

  async #ask(
    message: Uint8Array,
    query: Walked,
    via: "udp" | "tcp",
  ): Promise<Uint8Array | null> {
    const resolvers = await this.#resolvers();
    if (resolvers.length === 0) return null;
    for (let i = 0; i < TRIES; i++) {
      if (this.#closing.signal.aborted) return null;
      // Each question has a number that nobody can guess, and none is used for two.
      const id = crypto.getRandomValues(new Uint16Array(1))[0]!;
      message[0] = id >> 8;
      message[1] = id & 0xff;
      const accept = (answer: Uint8Array): boolean => matches(answer, message, id, query);
      const signal = AbortSignal.any([
        this.#closing.signal,
        AbortSignal.timeout(via === "udp" ? PATIENCE : PATIENCE_TCP),
      ]);
      try {
        const resolver = resolvers[i % resolvers.length]!;
        const answer = await this.#options.upstream.exchange(
          resolver,
          message,
          via,
          accept,
          signal,
        );
        if (accept(answer) && this.#isSound(answer)) return new Uint8Array(answer);
      } catch {
        // The next one is asked.
      }
    }
    return null;
  }

  async #resolvers(): Promise<readonly OutsidePeer[]> {
    const { resolvers, upstream } = this.#options;
    if (resolvers.length > 0) return resolvers;
    const now = performance.now();
    if (this.#known === null || now - this.#knownSince > FRESH) {
      this.#knownSince = now;
      try {
        this.#known = await upstream.resolvers();
      } catch {
        this.#known ??= [];
      }
    }
    return this.#known;
  }

  #isSound(answer: Uint8Array): boolean {
    const walked = walk(answer, MAX_RECORDS);
    return walked !== null && walked.aliases <= MAX_ALIASES;
  }

  #leadsInside(answer: Uint8Array, name: string): boolean {
    const { rebinding, trusted } = this.#options;
    if (trusted.some((domain) => name === domain || name.endsWith(`.${domain}`))) return false;
    return walk(answer, MAX_RECORDS)!.addresses.some((one) => isRebinding(one, rebinding));
  }
}

/** Whether a message answers a question: its id, and the very same question, but for small and capital letters. */
function matches(answer: Uint8Array, message: Uint8Array, id: number, query: Walked): boolean {
  if (answer.length < query.questionEnd) return false;
  if ((answer[0]! << 8 | answer[1]!) !== id) return false;
  if (((answer[2]! << 8) & DnsFlag.response) === 0) return false;
  if (answer[4] !== 0 || answer[5] !== 1) return false;
  for (let i = 12; i < query.questionEnd; i++) {
    if (answer[i] !== message[i] && lower(answer[i]!) !== lower(message[i]!)) return false;
  }
  return true;
}

function lower(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
}
