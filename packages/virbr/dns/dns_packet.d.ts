/** The part of dns-packet that is used here. */

export interface Question {
  name: string;
  type: string;
  class: string;
}

export interface OptAnswer {
  type: "OPT";
  name: ".";
  udpPayloadSize: number;
  extendedRcode?: number;
  ednsVersion?: number;
  flags?: number;
  flag_do?: boolean;
  options?: unknown[];
}

export interface RecordAnswer {
  type: "A" | "AAAA" | "PTR" | "SOA";
  name: string;
  class?: string;
  ttl: number;
  data: unknown;
}

export interface Packet {
  id: number;
  type: "query" | "response";
  flags: number;
  questions?: Question[];
  answers?: (RecordAnswer | OptAnswer)[];
  authorities?: (RecordAnswer | OptAnswer)[];
  additionals?: (RecordAnswer | OptAnswer)[];
}

/** A Buffer is made for these. */
export function decode(bytes: Uint8Array): Packet & { opcode: string };
export function encode(packet: Packet): Uint8Array;
