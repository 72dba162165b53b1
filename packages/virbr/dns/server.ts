/** The resolver of the network: names of guests are answered here, all others are asked for outside. */
import type { Guest } from "../ip/packet.ts";
// @ts-types="./dns_packet.d.ts"
import * as packets from "dns-packet";
import type { OptAnswer, Packet, RecordAnswer } from "./dns_packet.d.ts";
import type { Forwarder } from "./forwarder.ts";
import { normalName } from "./names.ts";
import { DnsFlag, walk, type Walked } from "./walk.ts";
import { textOf, type Zone, type ZoneAnswer } from "./zone.ts";

/** Port of UDP and TCP. */
export const DNS_PORT = 53;

/** Bytes of a query at most: names are short, only options could make it longer. */
const MAX_QUERY = 4096;
/** A question, and options of EDNS and signatures. */
const MAX_QUERY_RECORDS = 4;
/** Bytes of an answer by UDP that pass every link (the recommendation of DNS flag day 2020). */
const UDP_SIZE = 1232;
/** Bytes of an answer by UDP to who does not say that it takes more (RFC 1035, 4.2.1). */
const PLAIN_SIZE = 512;
/** Seconds that clients may keep names of the network: leases come and go. */
const TTL = 30;

/** Codes of an answer (RFC 1035, 4.1.1). */
export const DnsCode = {
  fine: 0,
  format: 1,
  failure: 2,
  noName: 3,
  notImplemented: 4,
  refused: 5,
} as const;

/** What the resolver counted. */
export interface DnsStats {
  /** Messages that were no queries. */
  malformed: number;
  /** Queries answered from the network's own names. */
  local: number;
  /** Queries that were asked outside. */
  forwarded: number;
  /** Of those, the ones without an answer. */
  failed: number;
  /** Answers that led to addresses of the host or its networks, and went no further. */
  rebinding: number;
  /** Queries beyond what a guest may ask at a time. */
  refused: number;
}

/** The resolver. */
export class DnsServer {
  readonly stats: DnsStats;
  readonly #zone: Zone;
  readonly #forwarder: Forwarder | null;

  /** @param forwarder Asks outside; null for nobody. */
  constructor(zone: Zone, forwarder: Forwarder | null) {
    this.#zone = zone;
    this.#forwarder = forwarder;
    this.stats = forwarder?.stats ??
      { malformed: 0, local: 0, forwarded: 0, failed: 0, rebinding: 0, refused: 0 };
  }

  /**
   * Answers a message. Never throws or rejects for what is in it.
   *
   * @param message Of a guest; valid during the call.
   * @param via How it came, which says how long the answer may be.
   * @returns The answer; null if there is none to give.
   */
  answer(
    message: Uint8Array,
    guest: Guest,
    via: "udp" | "tcp",
  ): Uint8Array | null | Promise<Uint8Array | null> {
    if (message.length < 12) {
      this.stats.malformed++;
      return null;
    }
    const flags = message[2]! << 8 | message[3]!;
    // An answer is never answered: two servers would go on for ever.
    if ((flags & DnsFlag.response) !== 0) {
      this.stats.malformed++;
      return null;
    }
    if ((flags & DnsFlag.opcode) !== 0) return bare(message, DnsCode.notImplemented);
    const walked = message.length > MAX_QUERY ? null : walk(message, MAX_QUERY_RECORDS);
    const query = walked === null || walked.questions !== 1 ? null : decode(message);
    if (walked === null || query === null) {
      this.stats.malformed++;
      return bare(message, DnsCode.format);
    }
    const opt = query.additionals?.find((one): one is OptAnswer => one.type === "OPT");
    if (opt !== undefined && (opt.ednsVersion ?? 0) !== 0) {
      return respond(query, DnsCode.fine, [], opt, 1);
    }
    const { name, type } = query.questions![0]!;
    const normal = normalName(name);
    if (normal !== null && query.questions![0]!.class === "IN") {
      const found = this.#zone.find(normal);
      if (found.kind !== "elsewhere") {
        this.stats.local++;
        return fit(this.#own(query, found, type, opt), walked, via);
      }
    }
    if (this.#forwarder === null || (flags & DnsFlag.recursionDesired) === 0) {
      return onlyCode(message, walked, DnsCode.refused);
    }
    return this.#forward(new Uint8Array(message), walked, guest, via, normal ?? "");
  }

  async #forward(
    message: Uint8Array,
    walked: Walked,
    guest: Guest,
    via: "udp" | "tcp",
    name: string,
  ): Promise<Uint8Array | null> {
    const result = await this.#forwarder!.ask(message, walked, guest, via, name);
    if (typeof result !== "number") return fit(result, walked, via);
    const { id } = walked;
    message[0] = id >> 8;
    message[1] = id & 0xff;
    return onlyCode(message, walked, result);
  }

  #own(query: Packet, found: ZoneAnswer, type: string, opt: OptAnswer | undefined): Uint8Array {
    if (found.kind === "none") return respond(query, DnsCode.noName, [], opt);
    // Its letters are those of the question, which some clients check.
    const { name } = query.questions![0]!;
    const answers: RecordAnswer[] = [];
    if (found.kind === "name") {
      if (type === "PTR" || type === "ANY") {
        answers.push({ type: "PTR", name, ttl: TTL, data: found.name });
      }
    } else if (found.kind === "addresses") {
      for (const [version, record] of [[4, "A"], [6, "AAAA"]] as const) {
        if (type !== record && type !== "ANY") continue;
        for (const data of textOf(found.addresses, version)) {
          answers.push({ type: record, name, ttl: TTL, data });
        }
      }
    }
    return respond(query, DnsCode.fine, answers, opt);
  }
}

/** The library reads only its own kind of bytes, which is Node's or a stand-in for it. */
const libraryBytes = packets.encode({ id: 0, type: "query", flags: 0 }).constructor as unknown as {
  from(bytes: Uint8Array): Uint8Array;
};

/** A query; null if the library finds it to be none. */
function decode(message: Uint8Array): Packet | null {
  try {
    return packets.decode(libraryBytes.from(message));
  } catch {
    return null;
  }
}

/** An answer of our own. */
function respond(
  query: Packet,
  code: number,
  answers: RecordAnswer[],
  opt: OptAnswer | undefined,
  extendedRcode = 0,
): Uint8Array {
  return packets.encode({
    id: query.id,
    type: "response",
    flags: (query.flags & DnsFlag.recursionDesired) | DnsFlag.recursionAvailable |
      (code === DnsCode.fine || code === DnsCode.noName ? DnsFlag.authoritative : 0) | code,
    questions: query.questions!,
    answers,
    additionals: opt === undefined ? [] : [{
      type: "OPT",
      name: ".",
      udpPayloadSize: UDP_SIZE,
      extendedRcode,
      ednsVersion: 0,
      flags: 0,
      options: [],
    }],
  });
}

/** An answer that is as long as the client takes, or says that it is to be asked for by TCP. */
function fit(answer: Uint8Array, walked: Walked, via: "udp" | "tcp"): Uint8Array {
  if (via === "tcp" || answer.length <= Math.max(PLAIN_SIZE, walked.ednsSize)) return answer;
  const short = onlyCode(answer, walked, answer[3]! & DnsFlag.code);
  short[2]! |= DnsFlag.truncated >> 8;
  return short;
}

/** An answer that repeats the question and has nothing but a code. */
function onlyCode(message: Uint8Array, walked: Walked, code: number): Uint8Array {
  const answer = new Uint8Array(walked.questionEnd);
  answer.set(bare(message, code));
  answer[5] = 1;
  answer.set(message.subarray(12, walked.questionEnd), 12);
  return answer;
}

/** An answer without anything but a code, to what could not be read. */
function bare(message: Uint8Array, code: number): Uint8Array {
  const answer = new Uint8Array(12);
  answer.set(message.subarray(0, 4));
  answer[2] = (answer[2]! & 0x79) | 0x80;
  answer[3] = 0x80 | code;
  return answer;
}
