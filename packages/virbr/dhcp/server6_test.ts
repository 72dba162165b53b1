import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { encodeNames } from "../dns/names.ts";
import { formatAddress, parseAddress, readIpv6, writeIpv6 } from "../ip/address.ts";
import { assertSum, TestGuest } from "../ip/guest_testing.ts";
import { Virbr } from "../virbr.ts";

const ALL = "ff02::1:2";
const GATEWAY = "fd00:1::1";
/** What the guest with the MAC address 52:54:00:00:00:01 gets. */
const OWN = "fd00:1::5254:0:1";
const CLIENT = [0, 1, 0, 4, 9, 8, 7, 6];
const SOLICIT = 1, ADVERTISE = 2, REQUEST = 3, CONFIRM = 4, RENEW = 5, REBIND = 6, REPLY = 7;
const RELEASE = 8, DECLINE = 9, INFORMATION = 11;

/** An answer: its type, its options, and of each association its status or its addresses with their seconds. */
interface Answer {
  readonly type: number;
  readonly options: ReadonlyMap<number, Uint8Array>;
  readonly given: readonly (number | Record<string, number>)[];
}

function address(bytes: Uint8Array, at: number): string {
  const words = new Uint32Array(4);
  readIpv6(new DataView(bytes.buffer, bytes.byteOffset), at, words);
  return formatAddress(words);
}

function options(bytes: Uint8Array): [number, Uint8Array][] {
  const found: [number, Uint8Array][] = [];
  for (let at = 0; at < bytes.length;) {
    const size = bytes[at + 2]! << 8 | bytes[at + 3]!;
    found.push([bytes[at]! << 8 | bytes[at + 1]!, bytes.slice(at + 4, at + 4 + size)]);
    at += 4 + size;
  }
  return found;
}

function association(option: number, bytes: Uint8Array): number | Record<string, number> {
  const inner = options(bytes.subarray(option === 4 ? 4 : 12));
  const status = inner.find(([code]) => code === 13);
  if (status !== undefined) return status[1][1]!;
  return Object.fromEntries(inner.map(([, one]) => {
    const view = new DataView(one.buffer);
    assertEquals(view.getUint32(16), view.getUint32(20));
    return [address(one, 0), view.getUint32(20)];
  }));
}

/** An association with addresses; of the kind 3, addresses, unless given. */
function wants(addresses: readonly string[] = [], id = 1, option = 3): number[] {
  const bytes = addresses.flatMap((text) => {
    const one = new Uint8Array(28);
    one.set([0, 5, 0, 24]);
    writeIpv6(new DataView(one.buffer), 4, parseAddress(text)!);
    return [...one];
  });
  const head = option === 4 ? [0, 0, 0, id] : [0, 0, 0, id, ...new Array(8).fill(0)];
  const length = head.length + bytes.length;
  return [0, option, length >> 8, length & 255, ...head, ...bytes];
}

function world() {
  let now = 0;
  const net = new Virbr({ clock: () => now, ipv6: "fd00:1::/64", leaseTime: 1000 });
  const guest = new TestGuest(net.port(), "52:54:00:00:00:01", net.mac);
  guest.ip6 = "fe80::5";
  const ask = (type: number, ...more: readonly (readonly number[])[]): Answer | null => {
    now += 1000;
    const message = Uint8Array.from([type, 1, 2, 3, ...more.flat()]);
    guest.send(guest.ipv6(17, ALL, guest.udp(546, 547, ALL, message)));
    const [packet] = guest.packets().filter(({ protocol }) => protocol === 17);
    if (packet === undefined) return null;
    assertSum(packet);
    assertEquals(formatAddress(packet.source), "fe80::1");
    const bytes = packet.payload.subarray(8);
    assertEquals([...bytes.subarray(1, 4)], [1, 2, 3]);
    const all = options(bytes.slice(4));
    return {
      type: bytes[0]!,
      options: new Map(all),
      given: all.filter(([code]) => [3, 4, 25].includes(code)).map((one) => association(...one)),
    };
  };
  const { options: told } = ask(INFORMATION, CLIENT)!;
  const server = [0, 2, 0, 10, ...told.get(2)!];
  return { net, guest, ask, server };
}

Deno.test("DHCPv6 tells resolvers to those who made an address themselves", () => {
  const { ask, server } = world();
  const { type, options: told, given } = ask(INFORMATION, CLIENT)!;
  assertEquals([type, given], [REPLY, []]);
  assertEquals([...told.get(1)!], [9, 8, 7, 6]);
  assertEquals(address(told.get(23)!, 0), GATEWAY);
  assertEquals([...told.get(24)!], [...encodeNames(["internal"])]);
  assertEquals([...told.get(32)!], [0, 0, 0x0e, 0x10]);
  assertEquals(ask(INFORMATION, CLIENT, server)!.type, REPLY);
  assertEquals(ask(INFORMATION, CLIENT, [0, 3, 0, 0]), null, "an association that is cut off");
  assertEquals(ask(INFORMATION, CLIENT, wants()), null, "it wants an address");
  assertEquals(ask(INFORMATION, CLIENT, [0, 2, 0, 2, 1, 1]), null, "another server");
  assertEquals(ask(INFORMATION, [0, 1, 0, 99]), null, "cut off");
});

Deno.test("a client that insists gets an address, always the same", () => {
  const { ask, server } = world();
  const offer = ask(SOLICIT, CLIENT, wants())!;
  assertEquals([offer.type, offer.given], [ADVERTISE, [{ [OWN]: 1000 }]]);
  const [, lease] = [...offer.options].find(([code]) => code === 3)!;
  const view = new DataView(lease.buffer);
  assertEquals([view.getUint32(0), view.getUint32(4), view.getUint32(8)], [1, 500, 800]);
  assertEquals(address(offer.options.get(23)!, 0), GATEWAY);
  const ack = ask(REQUEST, CLIENT, server, wants([OWN]))!;
  assertEquals([ack.type, ack.given], [REPLY, [{ [OWN]: 1000 }]]);
  assertEquals(ask(RENEW, CLIENT, server, wants([OWN]))!.given, [{ [OWN]: 1000 }]);
  assertEquals(ask(REBIND, CLIENT, wants([OWN]))!.given, [{ [OWN]: 1000 }]);
  const rapid = ask(SOLICIT, CLIENT, [0, 14, 0, 0], wants())!;
  assertEquals([rapid.type, rapid.options.has(14), rapid.given], [REPLY, true, [{ [OWN]: 1000 }]]);
  for (const type of [RELEASE, DECLINE]) {
    const done = ask(type, CLIENT, server, wants([OWN]))!;
    assertEquals([done.type, [...done.options.get(13)!], done.given], [REPLY, [0, 0], []]);
  }
});

Deno.test("what a client cannot have is said: other addresses, more of them, prefixes", () => {
  const { ask, server } = world();
  assertEquals(ask(RENEW, CLIENT, server, wants(["fd00:9::7", OWN]))!.given, [
    { [OWN]: 1000, "fd00:9::7": 0 },
  ]);
  const all = [wants([], 1), wants([], 2), wants([], 3, 4), wants([], 4, 25)];
  assertEquals(ask(SOLICIT, CLIENT, ...all)!.given, [{ [OWN]: 1000 }, 2, 2, 6]);
  const status = (
    ...addresses: string[]
  ) => [...ask(CONFIRM, CLIENT, wants(addresses))!.options.get(13)!];
  assertEquals([status(OWN), status("fd00:9::7")], [[0, 0], [0, 4]]);
  assertEquals(ask(CONFIRM, CLIENT, wants()), null, "nothing to confirm");
});

Deno.test("an address that somebody else has is not given, nor is the gateway's", () => {
  const { net, ask } = world();
  const other = new TestGuest(net.port(), "52:54:00:00:00:02", net.mac);
  other.ip6 = OWN;
  other.send(other.ipv6(17, GATEWAY, other.udp(1, 9, GATEWAY, new Uint8Array(4))));
  assertEquals(ask(SOLICIT, CLIENT, wants())!.given, [2]);
  const port = net.port();
  const odd = new TestGuest(port, "00:00:00:00:00:01", net.mac);
  odd.ip6 = "fe80::9";
  const message = Uint8Array.from([SOLICIT, 1, 2, 3, ...CLIENT, ...wants()]);
  odd.send(odd.ipv6(17, ALL, odd.udp(546, 547, ALL, message)));
  const [packet] = odd.packets();
  const given = options(packet!.payload.slice(12)).find(([code]) => code === 3)!;
  assertEquals(association(...given), 2);
});

Deno.test("messages that break a rule get no answer, however long they are", () => {
  const { ask, server } = world();
  assertEquals(ask(SOLICIT, wants()), null, "nobody asks");
  assertEquals(ask(SOLICIT, CLIENT, server, wants()), null, "whoever answers is meant");
  assertEquals(ask(REQUEST, CLIENT, wants()), null, "no server is meant");
  assertEquals(ask(REQUEST, CLIENT, [0, 2, 0, 1, 1], wants()), null, "another one is");
  assertEquals(ask(REBIND, CLIENT, server, wants()), null);
  for (const type of [0, ADVERTISE, REPLY, 10, 12, 13, 255]) assertEquals(ask(type, CLIENT), null);
  assertEquals(ask(SOLICIT, CLIENT, ...new Array(9).fill(wants())), null, "too many");
  assertEquals(ask(SOLICIT, CLIENT, wants(new Array(9).fill(OWN))), null, "too many");
  const most = ask(SOLICIT, CLIENT, ...new Array(8).fill(wants(new Array(8).fill("fd00:9::7"))))!;
  assertEquals(most.given.length, 8);
  assertEquals(ask(SOLICIT, [0, 1, 0, 131, ...new Array(131).fill(1)], wants()), null);
});

Deno.test("whatever a message has, it is answered or not, and an answer is whole", () => {
  const { ask, server } = world();
  const option = fc.oneof(
    fc.constantFrom(CLIENT, server, wants(), wants([OWN, "fd00:9::7"]), wants([], 1, 25)),
    fc.tuple(fc.constantFrom(1, 2, 3, 4, 5, 14, 25), fc.uint8Array({ maxLength: 60 }), fc.nat(3))
      .map(([code, bytes, wrong]) => [0, code, 0, bytes.length + (wrong === 0 ? 1 : 0), ...bytes]),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 13 }),
      fc.array(option, { maxLength: 12 }),
      (type, given) => {
        const answer = ask(type, ...given);
        if (answer !== null) assert(answer.type === ADVERTISE || answer.type === REPLY);
      },
    ),
    { numRuns: 1000 },
  );
});
