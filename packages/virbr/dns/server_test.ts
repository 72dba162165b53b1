import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
// @ts-types="./dns_packet.d.ts"
import * as packets from "dns-packet";
import { TestGuest } from "../ip/guest_testing.ts";
import type { DatagramOptions, Outside } from "../outside/outside.ts";
import type { VirbrOptions } from "../options.ts";
import { Virbr } from "../virbr.ts";
import { encodeName, normalName } from "./names.ts";
import { isRebinding, type RebindingRule } from "./rebinding.ts";
import { walk } from "./walk.ts";
import { addressOfReverse, reverseName } from "./zone.ts";
import { formatAddress, parseAddress } from "../ip/address.ts";

type Decoded = ReturnType<typeof packets.decode>;

/** The library's own kind of bytes. */
const libraryBytes = packets.encode({ id: 0, type: "query", flags: 0 }).constructor as unknown as {
  from(bytes: Uint8Array): Uint8Array;
};

/** An outside whose resolvers do what the test wants. */
class FakeOutside implements Outside {
  readonly asked: { message: Uint8Array; address: string }[] = [];
  open = 0;
  constructor(
    readonly reply: (message: Uint8Array, address: string, nth: number) => readonly Uint8Array[],
  ) {}

  connect(): Promise<never> {
    return Promise.reject(new Error("There is nobody"));
  }

  resolvers(): Promise<string[]> {
    return Promise.resolve(["192.0.2.53", "192.0.2.54"]);
  }

  datagrams({ receive, problem }: DatagramOptions) {
    this.open++;
    return Promise.resolve({
      address: "192.0.2.1",
      port: 40_000,
      send: (message: Uint8Array, address: string, port: number) => {
        this.asked.push({ message: message.slice(), address });
        const from = { address, port };
        for (const one of this.reply(message, address, this.asked.length)) receive(one, from);
        problem?.("refused", from);
      },
      close: () => {
        this.open--;
      },
    });
  }
}

function query(name: string, type: string, more: Partial<Decoded> = {}): Uint8Array {
  // The library's kind of bytes has a slice of its own, which shares them.
  return new Uint8Array(packets.encode({
    id: 0x1234,
    type: "query",
    flags: 0x0100,
    questions: [{ name, type, class: "IN" }],
    ...more,
  }));
}

function world(options: VirbrOptions = {}) {
  const net = new Virbr({
    clock: () => 0,
    names: { printer: ["192.168.122.200", "fd00:1::200"], "other.example": "192.0.2.77" },
    ...options,
  });
  const guest = new TestGuest(net.port(), "52:54:00:00:00:01", net.mac, "192.168.122.9");
  const raw = async (message: Uint8Array): Promise<Uint8Array | null> => {
    const to = "192.168.122.1";
    guest.send(guest.ipv4(17, to, guest.udp(3000, 53, to, message)));
    for (let i = 0; i < 50 && guest.frames.length === 0; i++) await Promise.resolve();
    const [packet] = guest.packets();
    if (packet === undefined) return null;
    assertEquals([...packet.payload.subarray(0, 4)], [0, 53, 3000 >> 8, 3000 & 0xff]);
    return packet.payload.slice(8);
  };
  const ask = async (name: string, type: string, more: Partial<Decoded> = {}) => {
    const bytes = await raw(query(name, type, more));
    const answer = packets.decode(libraryBytes.from(bytes!));
    assertEquals([answer.id, answer.type], [0x1234, "response"]);
    return {
      code: answer.flags & 15,
      data: (answer.answers ?? []).map((one) => "data" in one ? one.data : null),
      answer,
    };
  };
  return { net, guest, raw, ask };
}

/** The answer to a message, with one record of an address. */
function withAddress(message: Uint8Array, address: string): Uint8Array {
  const words = parseAddress(address)!;
  const four = !address.includes(":");
  const data = four
    ? Uint8Array.from([24, 16, 8, 0], (shift) => words[3]! >>> shift)
    : Uint8Array.from({ length: 16 }, (_, i) => words[i >> 2]! >>> (24 - 8 * (i & 3)));
  const record = [0xc0, 12, 0, four ? 1 : 28, 0, 1, 0, 0, 0, 60, 0, data.length, ...data];
  const answer = new Uint8Array(message.length + record.length);
  answer.set(message);
  answer[2]! |= 0x80;
  answer[7] = 1;
  answer.set(record, message.length);
  return answer;
}

Deno.test("names of the network are known, forward and reverse, and no others of its domain", async () => {
  const { ask } = world({ ipv6: "fd00:1::/64" });
  assertEquals((await ask("gateway.internal", "A")).data, ["192.168.122.1"]);
  assertEquals((await ask("GATEWAY", "AAAA")).data, ["fd00:1::1"]);
  assertEquals((await ask("printer.internal", "A")).data, ["192.168.122.200"]);
  assertEquals((await ask("printer", "ANY")).data, ["192.168.122.200", "fd00:1::200"]);
  assertEquals((await ask("other.example", "A")).data, ["192.0.2.77"]);
  assertEquals((await ask("localhost", "A")).data, ["127.0.0.1"]);
  assertEquals((await ask("1.122.168.192.in-addr.arpa", "PTR")).data, ["gateway.internal"]);
  assertEquals((await ask("200.122.168.192.in-addr.arpa", "PTR")).data, ["printer.internal"]);
  const six = reverseName(parseAddress("fd00:1::1")!);
  assertEquals((await ask(six, "PTR")).data, ["gateway.internal"]);
  const none = { code: 0, data: [] };
  for (
    const [name, type] of [["internal", "A"], ["gateway", "TXT"], [
      "other.example",
      "AAAA",
    ]] as const
  ) {
    const { code, data } = await ask(name, type);
    assertEquals({ code, data }, none, name);
  }
  for (
    const [name, type] of [["nobody.internal", "A"], ["single", "A"], [
      "a.gateway.internal",
      "A",
    ]] as const
  ) {
    assertEquals((await ask(name, type)).code, 3, name);
  }
  assertEquals((await ask("9.122.168.192.in-addr.arpa", "PTR")).code, 3);
  assertEquals((await ask("www.example.com", "A")).code, 5, "nobody is asked");
});

Deno.test("a lease of one's own has its name before the guest is there", async () => {
  const { ask } = world({
    leases: [{ mac: "52:54:00:00:00:77", address: "192.168.122.77", name: "db" }],
  });
  assertEquals((await ask("db.internal", "A")).data, ["192.168.122.77"]);
  assertEquals((await ask("77.122.168.192.in-addr.arpa", "PTR")).data, ["db.internal"]);
});

Deno.test("EDNS is answered in its version, and refused in others", async () => {
  const { ask } = world();
  const opt = (ednsVersion: number): Partial<Decoded> => ({
    additionals: [{ type: "OPT", name: ".", udpPayloadSize: 4096, ednsVersion }],
  });
  const good = await ask("gateway", "A", opt(0));
  assertEquals(good.answer.additionals!.length, 1);
  const bad = await ask("gateway", "A", opt(1));
  assertEquals(bad.data, []);
  const [one] = bad.answer.additionals!;
  assertEquals(one!.type === "OPT" ? one!.extendedRcode : null, 1);
});

Deno.test("an answer that is too long for UDP is cut, and whole by EDNS", async () => {
  const many = Array.from({ length: 40 }, (_, i) => `192.0.2.${i + 1}`);
  const { ask, raw } = world({ names: { many } });
  const short = await raw(query("many", "A"));
  assertEquals([short![2]! & 2, short!.length], [2, 12 + 6 + 4]);
  const { data } = await ask("many", "A", {
    additionals: [{ type: "OPT", name: ".", udpPayloadSize: 4096 }],
  });
  assertEquals(data, many);
});

Deno.test("what is no question gets no answer, or an error", async () => {
  const { raw, net } = world();
  const good = query("gateway", "A");
  const answer = good.slice();
  answer[2]! |= 0x80;
  assertEquals(await raw(answer), null, "an answer");
  assertEquals(await raw(good.slice(0, 11)), null, "less than a header");
  const notify = good.slice();
  notify[2]! |= 0x20;
  assertEquals((await raw(notify))![3]! & 15, 4);
  const two = good.slice();
  two[5] = 2;
  assertEquals((await raw(two))![3]! & 15, 1);
  // A name that leads to itself.
  const loop = new Uint8Array([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1]);
  assertEquals((await raw(loop))![3]! & 15, 1);
  assertEquals(net.stats.dns.malformed, 4);
});

Deno.test("other names are asked for outside, with an id that nobody can guess", async () => {
  const outside = new FakeOutside((message) => [withAddress(message, "198.51.100.7")]);
  const { ask, net } = world({ outside });
  const ids = new Set<number>();
  for (let i = 0; i < 20; i++) {
    assertEquals((await ask("www.example.com", "A")).data, ["198.51.100.7"]);
    const { message } = outside.asked.at(-1)!;
    ids.add(message[0]! << 8 | message[1]!);
  }
  assert(ids.size > 15);
  assertEquals([outside.asked.length, outside.open, net.stats.dns.forwarded], [20, 0, 20]);
  await net.close();
});

Deno.test("an answer that is none of this question is not taken", async () => {
  const wrong: ((good: Uint8Array) => void)[] = [
    (bytes) => bytes[0]! ^= 1,
    (bytes) => bytes[2]! &= 0x7f,
    (bytes) => bytes[14]! ^= 1,
    (bytes) => bytes[5] = 2,
  ];
  const outside = new FakeOutside((message) => {
    const good = withAddress(message, "198.51.100.7");
    return [
      ...wrong.map((damage) => {
        const bad = withAddress(message, "198.51.100.66");
        damage(bad);
        return bad;
      }),
      good,
    ];
  });
  const { ask, net } = world({ outside });
  assertEquals((await ask("www.example.com", "A")).data, ["198.51.100.7"]);
  await net.close();
});

Deno.test("the next resolver is asked when one fails or answers nonsense", async () => {
  const outside = new FakeOutside((message, _address, nth) => {
    if (nth === 1) return [];
    if (nth === 2) return [withAddress(message, "198.51.100.7").subarray(0, message.length + 9)];
    return [withAddress(message, "198.51.100.8")];
  });
  const { ask, net } = world({ outside });
  assertEquals((await ask("www.example.com", "A")).data, ["198.51.100.8"]);
  assertEquals(outside.asked.map(({ address }) => address), [
    "192.0.2.53",
    "192.0.2.54",
    "192.0.2.53",
  ]);
  const { code } = await world({ outside: new FakeOutside(() => []) }).ask("www.example.com", "A");
  assertEquals(code, 2);
  await net.close();
});

Deno.test("names of the outside do not lead to the host or its networks, unless they may", async () => {
  for (
    const [address, refuse, loopback] of [
      ["127.0.0.1", true, true],
      ["127.8.9.1", true, true],
      ["0.0.0.0", true, true],
      ["169.254.169.254", true, true],
      ["10.1.2.3", true, false],
      ["172.16.0.1", true, false],
      ["172.31.255.255", true, false],
      ["172.15.0.1", false, false],
      ["172.32.0.1", false, false],
      ["192.168.1.1", true, false],
      ["100.64.0.1", true, false],
      ["198.51.100.1", false, false],
      ["::1", true, true],
      ["::", true, true],
      ["fe80::1", true, true],
      ["fd12::1", true, false],
      ["::ffff:127.0.0.1", true, true],
      ["::127.0.0.1", true, true],
      ["64:ff9b::10.0.0.1", true, false],
      ["2002:7f00:1::1", true, true],
      ["2001:db8::1", false, false],
    ] as const
  ) {
    const bytes = new Uint8Array(16);
    const words = parseAddress(address)!;
    words.forEach((word, i) => new DataView(bytes.buffer).setUint32(4 * i, word));
    const own = address.includes(":") ? bytes : bytes.subarray(12);
    for (const [rule, expected] of [["refuse", refuse], ["loopback", loopback], ["allow", false]]) {
      assertEquals(isRebinding(own, rule as RebindingRule), expected, `${address} ${rule}`);
    }
  }
  const outside = new FakeOutside((message) => [withAddress(message, "192.168.7.7")]);
  const { ask, net } = world({ outside, trusted: ["corp.example"] });
  assertEquals((await ask("evil.example.com", "A")).code, 5);
  assertEquals(net.stats.dns.rebinding, 1);
  assertEquals((await ask("intranet.corp.example", "A")).data, ["192.168.7.7"]);
  await net.close();
});

Deno.test("a guest asks for so much at a time, and no more", async () => {
  const waiting: (() => void)[] = [];
  const outside: Outside = {
    connect: () => Promise.reject(new Error("There is nobody")),
    resolvers: () => Promise.resolve(["192.0.2.53"]),
    datagrams: ({ receive }) =>
      Promise.resolve({
        address: "192.0.2.1",
        port: 1,
        send: (message, address, port) => {
          const answer = withAddress(message, "198.51.100.7");
          waiting.push(() => receive(answer, { address, port }));
        },
        close: () => {},
      }),
  };
  const { guest, net } = world({ outside });
  const message = query("www.example.com", "A");
  for (let i = 0; i < 100; i++) {
    guest.send(guest.ipv4(17, "192.168.122.1", guest.udp(3000, 53, "192.168.122.1", message)));
  }
  for (let i = 0; i < 50; i++) await Promise.resolve();
  assertEquals(guest.packets().map(({ payload }) => payload[11]! & 15), new Array(36).fill(2));
  assertEquals([waiting.length, net.stats.dns.refused], [64, 36]);
  for (const each of waiting) each();
  for (let i = 0; i < 50; i++) await Promise.resolve();
  assertEquals(guest.packets().length, 64);
  await net.close();
});

Deno.test("a walk over a message ends, and takes what is sound", () => {
  const good = withAddress(query("www.example.com", "A"), "198.51.100.7");
  assertEquals(walk(good, 16)!.addresses.map((one) => [...one]), [[198, 51, 100, 7]]);
  assertEquals(walk(good, 1), null, "too many records");
  assertEquals(walk(good.subarray(0, good.length - 1), 16), null);
  assertEquals(walk(Uint8Array.from([...good, 0]), 16), null, "more than it says");
  // Pointers forward, to themselves, into the header.
  for (const target of [12, 34, 200, 3]) {
    const bad = good.slice();
    bad[good.length - 16] = 0xc0;
    bad[good.length - 15] = target;
    assertEquals(walk(bad, 16) === null, target !== 12, `${target}`);
  }
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 4 }),
      (random, changes) => {
        walk(random, 1024);
        const bytes = good.slice();
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        const walked = walk(bytes, 1024);
        if (walked !== null && walked.questions === 1) assert(walked.questionEnd <= bytes.length);
      },
    ),
  );
  // As many pointers as there is room for: each name is as long as a name may be.
  const bomb = new Uint8Array(65_535);
  const view = new DataView(bomb.buffer);
  view.setUint16(4, 1);
  bomb.set(encodeName(new Array(4).fill("x".repeat(60)).join(".")), 12);
  let at = 12 + 246 + 4;
  let records = 0;
  for (; at + 12 <= bomb.length; at += 12, records++) view.setUint16(at, 0xc00c);
  view.setUint16(6, records);
  const start = performance.now();
  walk(bomb.subarray(0, at), 65_535);
  assert(performance.now() - start < 1000);
});

Deno.test("names are checked and written", () => {
  assertEquals(normalName("Www.Example.COM."), "www.example.com");
  for (const bad of ["", ".", "a..b", "-a.b", "a b", "x".repeat(64), `${"x.".repeat(127)}xx`]) {
    assertEquals(normalName(bad), null, bad);
  }
  assertEquals([...encodeName("a.bc")], [1, 97, 2, 98, 99, 0]);
  fc.assert(
    fc.property(fc.uint32Array({ minLength: 4, maxLength: 4 }), fc.boolean(), (words, four) => {
      if (four) words.set([0, 0, 0xffff]);
      assertEquals(formatAddress(addressOfReverse(reverseName(words))!), formatAddress(words));
    }),
  );
});
