/** What a machine that boots from the network asks for: an address by DHCP (RFC 2131), files by TFTP (RFC 1350, 2347 to 2349). */
import type { Datagram, Station } from "../../examples/net/host/station.ts";
import { BROADCAST_IP, BROADCAST_MAC, parseIp } from "../../examples/net/host/wire.ts";

const DHCP_SERVER = 67;
const DHCP_CLIENT = 68;
const TFTP_SERVER = 69;
const DHCP_OPTIONS = 240;
const MAGIC = [0x63, 0x82, 0x53, 0x63];
const encoder = new TextEncoder();
const decoder = new TextDecoder("latin1");

/** What was asked for, in order. */
export type Asked = string[];

/** Answers DHCP: one address for whoever asks, and the name of a file to boot. */
export function serveDhcp(station: Station, address: string, file: string, asked: Asked): void {
  station.onUdp(DHCP_SERVER, ({ data }) => {
    if (data.length < DHCP_OPTIONS || data[0] !== 1) return;
    const type = findOption(data, 53)?.[0];
    // DISCOVER is answered by OFFER, REQUEST by ACK.
    const answer = type === 1 ? 2 : type === 3 ? 5 : null;
    if (answer === null) return;
    const mac = [...data.subarray(28, 34)].map((byte) => byte.toString(16).padStart(2, "0"));
    asked.push(`${type === 1 ? "discover" : "request"} ${mac.join(":")}`);
    const reply = new Uint8Array(300);
    reply.set(data.subarray(0, 44));
    reply[0] = 2;
    reply.set(parseIp(address), 16);
    reply.set(station.ip, 20);
    reply.set(encoder.encode(file), 108);
    reply.set([
      ...MAGIC,
      ...[53, 1, answer],
      ...[54, 4, ...station.ip],
      ...[51, 4, 0, 0, 0x0e, 0x10],
      ...[1, 4, 255, 255, 255, 0],
      255,
    ], DHCP_OPTIONS - MAGIC.length);
    station.sendUdp(BROADCAST_MAC, BROADCAST_IP, { from: DHCP_SERVER, to: DHCP_CLIENT }, reply);
  });
}

function findOption(data: Uint8Array, wanted: number): Uint8Array | null {
  for (let at = DHCP_OPTIONS; at + 1 < data.length && data[at] !== 255;) {
    const length = data[at] === 0 ? -1 : data[at + 1]!;
    if (data[at] === wanted) return data.subarray(at + 2, at + 2 + length);
    at += 2 + length;
  }
  return null;
}

/** Serves files by TFTP, one transfer at a time for each port that the other side uses. */
export function serveTftp(
  station: Station,
  files: ReadonlyMap<string, Uint8Array>,
  asked: Asked,
): void {
  let port = 20_000;
  station.onUdp(TFTP_SERVER, (request) => {
    const { data } = request;
    if (data[1] !== 1) return;
    const words = decoder.decode(data.subarray(2)).split("\0");
    asked.push(`tftp ${words[0]}`);
    transfer(station, request, port++, files.get(words[0]!), words.slice(2, -1));
  });
}

function transfer(
  station: Station,
  { from, fromMac, fromPort }: Datagram,
  port: number,
  file: Uint8Array | undefined,
  words: readonly string[],
): void {
  const send = (bytes: Uint8Array | number[]): void =>
    station.sendUdp(fromMac, from, { from: port, to: fromPort }, Uint8Array.from(bytes));
  if (file === undefined) {
    send([0, 5, 0, 1, ...encoder.encode("no such file\0")]);
    return;
  }
  let size = 512;
  let accepted = "";
  for (let i = 0; i + 1 < words.length; i += 2) {
    const name = words[i]!.toLowerCase();
    if (name === "blksize") {
      size = Math.max(8, Math.min(1428, Number(words[i + 1])));
      accepted += `blksize\0${size}\0`;
    } else if (name === "tsize") accepted += `tsize\0${file.length}\0`;
  }
  const sendBlock = (block: number): void => {
    const at = (block - 1) * size;
    // The last block is the first that is not full.
    if (at > file.length) return;
    send([0, 3, block >> 8, block & 0xff, ...file.subarray(at, at + size)]);
  };
  station.onUdp(port, ({ data }) => {
    if (data[1] === 4) sendBlock((data[2]! << 8 | data[3]!) + 1);
  });
  if (accepted === "") sendBlock(1);
  else send([0, 6, ...encoder.encode(accepted)]);
}
