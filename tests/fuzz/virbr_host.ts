/** The other end of a fuzzed network's uplink. */
import { type Frame, type FrameSink, type NetBackend, Offload } from "@virtio/net";
import { ipv4HeaderChecksum } from "@virtio/net/wire";
import { parseIpv4 } from "../../packages/virbr/ip/address.ts";
import type { UplinkCase } from "./virbr_cases.ts";

const SENDERS = ["10.9.0.1", "198.51.100.1", "192.168.122.3", "127.0.0.1"];
const RECEIVERS = [
  "192.168.122.2",
  "192.168.122.3",
  "192.168.122.1",
  "10.9.0.2",
  "192.168.122.255",
];
const MAC = [2, 0, 0, 0, 0, 0xfe];

/** A host that keeps what comes, and sends what cases say. */
export class FuzzedHost implements NetBackend {
  readonly offloads: number = Offload.all;
  readonly frames: Uint8Array[] = [];
  readonly uplink = { backend: this, address: "10.9.0.2/30", router: "10.9.0.1" };
  onLinkChange: (() => void) | null = null;
  peer: FrameSink | null = null;

  connect(peer: FrameSink | null): void {
    this.peer = peer;
  }

  deliver(frame: Frame): void {
    this.frames.push(frame.bytes.slice());
  }

  /** The frame of a case. @param mac The network's. */
  frame({ content, from, to }: UplinkCase, mac: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(content === "datagram" ? 80 : 42);
    const view = new DataView(bytes.buffer);
    bytes.set(mac);
    bytes.set(MAC, 6);
    const [sender, receiver] = [parseIpv4(SENDERS[from]!)!, parseIpv4(RECEIVERS[to]!)!];
    if (content === "datagram") {
      view.setUint16(12, 0x0800);
      view.setUint32(14, 0x4500_0000 | 66);
      view.setUint8(22, 64);
      view.setUint8(23, 17);
      view.setUint32(26, sender);
      view.setUint32(30, receiver);
      view.setUint16(24, ipv4HeaderChecksum(view, 14, 20));
    } else {
      view.setUint16(12, 0x0806);
      view.setUint32(14, 0x0001_0800);
      view.setUint32(18, 0x0604_0000 | (content === "reply" ? 2 : 1));
      bytes.set(MAC, 22);
      view.setUint32(28, sender);
      view.setUint32(38, receiver);
    }
    return bytes;
  }
}
