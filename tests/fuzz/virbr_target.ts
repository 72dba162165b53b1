/**
 * Fuzzes a network of guests: Ethernet, ARP, IPv4 and IPv6 with fragments and extension headers, ICMP, neighbour discovery, UDP,
 * DHCP, DNS; from guests that mostly keep the rules, and from resolvers of the outside that need not.
 */
import { assert, assertEquals } from "@std/assert";
import { Frame } from "@virtio/net";
import { ipv4HeaderChecksum } from "@virtio/net/wire";
import { type DatagramOptions, Virbr } from "@virtio/virbr";
import { formatAddress } from "../../packages/virbr/ip/address.ts";
import {
  assertSum,
  macBytes,
  readPacket,
  TestGuest,
} from "../../packages/virbr/ip/guest_testing.ts";
import type { Target } from "./harness.ts";
import {
  type Content,
  type Damage,
  type FrameCase,
  type UplinkCase,
  type VirbrCase,
  virbrCases,
} from "./virbr_cases.ts";
import { FuzzedHost } from "./virbr_host.ts";
import { content4, content6 } from "./virbr_frames.ts";

const GUESTS = 3;
const PREFIX = "fd00:1::/64";
/** What may wait at most, by the limits of the packages. */
const STATIONS = 8 * GUESTS;

/** What all resolvers of the outside say. */
class FuzzedOutside {
  readonly #answers: (readonly number[] | null)[];

  constructor(answers: VirbrCase["answers"]) {
    this.#answers = [...answers];
  }

  connect(): Promise<never> {
    return Promise.reject(new Error("There is nobody"));
  }

  resolvers(): Promise<string[]> {
    return Promise.resolve(["192.0.2.53"]);
  }

  datagrams({ receive, problem }: DatagramOptions) {
    const from = { address: "192.0.2.53", port: 53 };
    return Promise.resolve({
      address: "192.0.2.1",
      port: 40_000,
      send: (message: Uint8Array) => {
        const answer = this.#answers.shift();
        if (answer === undefined) return problem?.("refused", from);
        const bytes = new Uint8Array(message.length + (answer?.length ?? 0));
        bytes.set(message);
        bytes[2]! |= 0x80;
        if (answer !== null) {
          bytes.set(answer, message.length);
          bytes[7] = 1;
        }
        receive(bytes, from);
        problem?.("refused", from);
      },
      close: () => {},
    });
  }
}

class VirbrRun {
  readonly #test: VirbrCase;
  readonly #net: Virbr;
  readonly #guests: TestGuest[] = [];
  readonly #errors: unknown[] = [];
  readonly #host: FuzzedHost = new FuzzedHost();
  #now = 0;
  /** Whose frame is on its way, null if it is the gateway's turn. */
  #sender: TestGuest | null = null;

  constructor(test: VirbrCase) {
    this.#test = test;
    this.#net = new Virbr({
      clock: () => this.#now,
      ...(test.routed ? { mode: "routed", uplink: this.#host.uplink } : {}),
      mtu: test.mtu,
      claims: test.claims,
      ipv6: test.ipv6 ? PREFIX : false,
      outside: new FuzzedOutside(test.answers),
      pool: ["192.168.122.2", "192.168.122.6"],
      leases: [{ mac: "52:54:00:00:00:02", address: "192.168.122.100", name: "fixed" }],
      names: { "printer": ["192.168.122.200", "fd00:1::200"] },
      onError: (error) => this.#errors.push(error),
    });
    for (let i = 0; i < GUESTS; i++) this.#guests.push(this.#plug(i));
  }

  async run(): Promise<void> {
    for (const step of this.#test.steps) {
      switch (step.do) {
        case "frame":
          this.#frame(step);
          break;
        case "uplink":
          this.#uplink(step);
          break;
        case "wait":
          this.#now += 1000 * step.seconds;
          break;
        case "replug":
          this.#guests[step.guest]!.port.close();
          this.#guests[step.guest] = this.#plug(step.guest);
          break;
        case "up":
          this.#guests[step.guest]!.port.up = step.up;
      }
      this.#check();
      // Resolvers answer in between.
      for (let i = 0; i < 8; i++) await Promise.resolve();
      this.#look();
    }
    this.#works();
    assertEquals(this.#errors, [], "nothing is thrown");
    await this.#net.close();
    assertEquals(this.#net.guests, []);
  }

  #plug(i: number): TestGuest {
    const mac = `52:54:00:00:00:0${i + 1}`;
    const guest = new TestGuest(this.#net.port(), mac, this.#net.mac, `192.168.122.${i + 2}`);
    // The one that it could have made of the router's advertisement.
    guest.ip6 = `fd00:1::${i + 2}`;
    return guest;
  }

  #frame(step: FrameCase): void {
    const sender = this.#guests[step.guest]!;
    const claimed = this.#guests[step.as]!;
    // It speaks as itself, or as another: the frame is the other's then.
    const bytes = build(step.content, claimed);
    const frame = new Frame().fromBytes(spoil(bytes, step.damage));
    if (step.header !== null) {
      const [flags, gsoType, gsoSize, csumStart, csumOffset] = step.header as [
        number,
        number,
        number,
        number,
        number,
      ];
      Object.assign(frame, { flags, gsoType, gsoSize, csumStart, csumOffset });
    }
    this.#sender = sender;
    sender.port.deliver(frame);
    this.#look();
    this.#sender = null;
  }

  #uplink(step: UplinkCase): void {
    if (!this.#test.routed) return;
    const bytes = this.#host.frame(step, macBytes(this.#net.mac));
    this.#host.peer!.deliver(new Frame().fromBytes(spoil(bytes, step.damage)));
    this.#look();
  }

  /** What has arrived is as it should be. */
  #look(): void {
    for (const bytes of this.#host.frames.splice(0)) {
      const packet = readPacket(bytes);
      if (packet === null) continue;
      // Only guests leave, and not for each other.
      assert(formatAddress(packet.source).startsWith("192.168.122."));
      assert(!formatAddress(packet.destination).startsWith("192.168.122."));
      assert(packet.hopLimit > 0);
    }
    for (const guest of this.#guests) {
      for (const { bytes } of guest.frames.splice(0)) {
        assert(bytes.length >= 14 && bytes.length <= this.#test.mtu + 14, `${bytes.length} bytes`);
        const mac = hex(bytes.subarray(6, 12));
        if (mac !== hex(guest.gateway)) {
          assert(this.#sender !== guest, "a frame comes back");
          continue;
        }
        const packet = readPacket(bytes);
        if (packet === null) continue;
        const view = new DataView(bytes.buffer);
        const fragment = packet.version === 4
          ? (view.getUint16(20) & 0x3fff) !== 0
          : packet.protocol === 44;
        const routed = !formatAddress(packet.source).startsWith("192.168.122.");
        if (!fragment && !(this.#test.routed && packet.version === 4 && routed)) assertSum(packet);
      }
    }
  }

  /** What is remembered keeps its bounds, and nobody has the address of another. */
  #check(): void {
    const { guests, leases } = this.#net;
    assert(guests.length <= STATIONS, `${guests.length} stations`);
    assert(leases.length <= 6, `${leases.length} leases`);
    const seen = new Set<string>();
    for (const { addresses } of guests) {
      for (const address of addresses) {
        assert(!seen.has(address), `${address} belongs to two`);
        assert(address !== this.#net.gateway && address !== this.#net.gateway6);
        assert(!(this.#test.ipv6 && address === "fe80::1"));
        seen.add(address);
      }
    }
    assertEquals(new Set(leases.map(({ address }) => address)).size, leases.length);
    assertEquals(new Set(leases.map(({ mac }) => mac)).size, leases.length);
  }

  /** The gateway still answers a guest that keeps the rules. */
  #works(): void {
    this.#now += 400_000;
    const fresh = new TestGuest(this.#net.port(), "52:54:00:00:01:00", this.#net.mac);
    // An address that it alone has.
    fresh.ip = "192.168.122.150";
    if (!this.#test.claims) return;
    const message = fresh.icmp(8, 0, new Uint8Array(60).fill(3));
    fresh.send(fresh.ipv4(1, "192.168.122.1", message));
    const [answer] = fresh.packets();
    assert(answer !== undefined, "the gateway answers");
    assertEquals(answer!.payload.subarray(4), message.subarray(4));
  }
}

function build(content: Content, guest: TestGuest): Uint8Array {
  if (content.kind === "arp") {
    return guest.arp(content.operation, guest.ip, `192.168.122.${content.target}`);
  }
  const six = content.kind === "extensions" || content.kind === "neighbour" ||
    ("version" in content && content.version === 6);
  return six ? content6(content, guest) : content4(content, guest);
}

/** Does to a frame what a case says. */
function spoil(bytes: Uint8Array, damage: Damage | null): Uint8Array {
  if (damage === null) return bytes;
  for (const [place, value] of damage.bytes) {
    bytes[Math.floor(place * bytes.length / 1000)] = value;
  }
  if (damage.repaired) repair(bytes);
  if (damage.cut === null) return bytes;
  return bytes.subarray(0, Math.floor(damage.cut * bytes.length / 1000));
}

/** Makes the header's sum right again. */
function repair(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer);
  if (bytes.length < 34 || view.getUint16(12) !== 0x0800) return;
  const size = (view.getUint8(14) & 15) * 4;
  if (size < 20 || 14 + size > bytes.length) return;
  view.setUint16(24, ipv4HeaderChecksum(view, 14, size));
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** The target. */
export const virbrTarget: Target<VirbrCase> = {
  name: "virbr",
  cases: virbrCases,
  run: (test) => new VirbrRun(test).run(),
};
