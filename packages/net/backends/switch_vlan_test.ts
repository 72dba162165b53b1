/** VLANs at the edge of the switch, and all of its rules together against a model that knows nothing of speed. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../constants.ts";
import { Frame } from "../frame.ts";
import { Offload } from "../sink.ts";
import { Switch, type SwitchPortOptions } from "./switch.ts";
import { BROADCAST, collect, envelope, GROUP, letter, station } from "./switch_testing.ts";

Deno.test("an access port's VLAN has a tag on a trunk, and none on access ports", () => {
  const network = new Switch();
  const access = network.port({ vlan: 10 });
  const other = network.port({ vlan: 20 });
  const same = network.port({ vlan: 10 });
  const trunk = network.port({ trunk: { vlans: [10, 20], native: null } });
  const native = network.port({ trunk: { vlans: [20], native: 10 } });
  const got = [access, other, same, trunk, native].map((port) => collect(port));
  const take = (): Uint8Array[][] => got.map((each) => each.splice(0));
  const bare = envelope({ to: BROADCAST, from: 1 });
  const tagged = (...tags: number[]): Uint8Array => envelope({ to: BROADCAST, from: 1, tags });
  access.send(new Frame().fromBytes(bare));
  assertEquals(take(), [[], [], [bare], [tagged(10)], [bare]]);
  // A tag with a priority alone says nothing about the VLAN; the priority goes on where there are tags.
  access.send(new Frame().fromBytes(tagged(0xe000)));
  assertEquals(take(), [[], [], [bare], [tagged(0xe00a)], [bare]]);
  trunk.send(new Frame().fromBytes(tagged(0x6014)));
  assertEquals(take(), [[], [bare], [], [], [tagged(0x6014)]]);
  native.send(new Frame().fromBytes(bare));
  assertEquals(take(), [[bare], [], [bare], [tagged(10)], []]);
  // Not allowed in: tags on an access port, other VLANs, none where there is no native one, the reserved one.
  access.send(new Frame().fromBytes(tagged(10)));
  trunk.send(new Frame().fromBytes(tagged(30)));
  trunk.send(new Frame().fromBytes(bare));
  trunk.send(new Frame().fromBytes(tagged(0)));
  trunk.send(new Frame().fromBytes(tagged(4095)));
  assertEquals(take(), [[], [], [], [], []]);
  assertEquals([access, trunk].map((port) => port.counters.drops.vlan), [1, 4]);
});

Deno.test("a tag under a tag never becomes the tag", () => {
  const network = new Switch();
  const access = network.port({ vlan: 10 });
  const trunk = network.port({ trunk: { native: 10 } });
  const out = network.port({ trunk: { native: 10 } });
  const got = [collect(out), collect(trunk)];
  access.send(letter({ to: BROADCAST, from: 1, tags: [0, 20] }));
  trunk.send(letter({ to: BROADCAST, from: 1, tags: [10, 20] }));
  assertEquals(got, [[], []]);
  assertEquals([access, out].map((port) => port.counters.drops.vlan), [1, 2]);
  // Where tags stay, those under them are nobody's business.
  trunk.send(letter({ to: BROADCAST, from: 1, tags: [30, 20] }));
  assertEquals(got[0], [envelope({ to: BROADCAST, from: 1, tags: [30, 20] })]);
});

Deno.test("without a word about VLANs tags pass as they are", () => {
  const network = new Switch();
  const a = network.port();
  const got = collect(network.port());
  for (const tags of [[], [0], [0xe000], [5], [0xa005, 7], [4094]]) {
    a.send(letter({ to: BROADCAST, from: 1, tags }));
    assertEquals(got.pop(), envelope({ to: BROADCAST, from: 1, tags }));
  }
});

Deno.test("a tag moves what the net header says, and only for the receiver", () => {
  const network = new Switch();
  const access = network.port({ vlan: 10 });
  const trunk = network.port({ trunk: { vlans: [10], native: null } });
  const seen: number[][] = [];
  const note = (frame: Frame): void =>
    void seen.push([frame.length, frame.csumStart, frame.csumOffset, frame.headerLength]);
  access.listen(note, Offload.all);
  trunk.listen(note, Offload.all);
  for (const [port, tags, shift] of [[access, [], 4], [trunk, [10], -4]] as const) {
    const bytes = envelope({ to: BROADCAST, from: 1, tags, size: 100 });
    const frame = new Frame().fromBytes(bytes);
    frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    frame.csumStart = 38;
    frame.csumOffset = 6;
    frame.headerLength = 46;
    port.send(frame);
    assertEquals(seen.pop(), [bytes.length + shift, 38 + shift, 6, 46 + shift]);
    assertEquals(frame.bytes, bytes);
    assertEquals([frame.csumStart, frame.headerLength], [38, 46]);
  }
});

Deno.test("a frame without room for a tag is dropped", () => {
  const network = new Switch();
  const access = network.port({ vlan: 10 });
  const trunk = network.port({ trunk: {} });
  const got = collect(trunk);
  const bytes = envelope({ to: BROADCAST, from: 1, size: 986 });
  access.send(new Frame(1003).fromBytes(bytes));
  assertEquals([got.length, trunk.counters.drops.long], [0, 1]);
  access.send(new Frame(1004).fromBytes(bytes));
  assertEquals(got, [envelope({ to: BROADCAST, from: 1, size: 986, tags: [10] })]);
});

/** What the model knows of a port. */
interface ModelPort {
  readonly options: SwitchPortOptions;
  readonly isolated: boolean;
}

/** The VLAN of a frame that comes in; null if it may not. */
function modelVlan({ options }: ModelPort, tags: readonly number[]): number | null {
  const id = tags.length === 0 ? 0 : tags[0]! & 0xfff;
  if (options.vlan !== undefined) return id === 0 ? options.vlan : null;
  const { native = 0, vlans = "all" } = options.trunk ?? {};
  if (id === 0) return native;
  if (id === 4095) return null;
  return vlans === "all" || vlans.includes(id) || id === native ? id : null;
}

/** The tags with which a frame of a VLAN leaves; null if it does not. */
function modelTags(
  { options }: ModelPort,
  vlan: number,
  tags: readonly number[],
): readonly number[] | null {
  const { native = 0, vlans = "all" } = options.trunk ?? {};
  const bare = (options.vlan ?? native) === vlan;
  const member = bare ||
    options.vlan === undefined && vlan !== 0 && (vlans === "all" || vlans.includes(vlan));
  if (!member) return null;
  if (vlan === 0) return tags;
  if (bare) return tags.length < 2 ? [] : null;
  return tags.length === 0 ? [vlan] : [tags[0]! & 0xf000 | vlan, ...tags.slice(1)];
}

const vlan = fc.constantFrom(1, 2, 4094);
const portOptions: fc.Arbitrary<SwitchPortOptions> = fc.oneof(
  fc.constant({}),
  vlan.map((vlan) => ({ vlan })),
  fc.constant({ vlan: 0 }),
  fc.record({
    vlans: fc.oneof(fc.constant("all" as const), fc.uniqueArray(vlan, { maxLength: 2 })),
    native: fc.oneof(fc.constant(null), fc.constant(0), vlan),
  }).map((trunk) => ({ trunk })),
);

Deno.test("nobody gets a frame that is not for him, whatever is sent by whichever port", () => {
  const ports = fc.array(fc.record({ options: portOptions, isolated: fc.boolean() }), {
    minLength: 2,
    maxLength: 5,
  });
  const address = fc.integer({ min: 1, max: 5 });
  const frames = fc.array(
    fc.record({
      port: fc.nat(),
      from: address,
      to: fc.oneof(address, fc.constantFrom(BROADCAST, GROUP)),
      tags: fc.oneof(
        fc.constant([]),
        fc.array(fc.constantFrom(0, 0xe000, 1, 2, 0x6002, 4094, 3, 4095), {
          minLength: 1,
          maxLength: 2,
        }),
      ),
      size: fc.constantFrom(0, 46, 300),
    }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(ports, frames, (model, sent) => {
      const network = new Switch();
      const ports = model.map(({ options, isolated }) => network.port({ ...options, isolated }));
      const got = ports.map((port) => collect(port));
      const where = new Map<string, number>();
      sent.forEach(({ port, from, to, tags, size }, n) => {
        const sender = port % ports.length;
        const vlan = modelVlan(model[sender]!, tags);
        const bytes = envelope({ to, from, tags, size, fill: n });
        const frame = new Frame().fromBytes(bytes);
        ports[sender]!.send(frame);
        assertEquals(frame.bytes, bytes, "the sender's frame stays as it is");
        const expected: Uint8Array[][] = ports.map(() => []);
        if (vlan !== null) {
          where.set(`${vlan} ${station(from)}`, sender);
          const known = typeof to === "number" ? where.get(`${vlan} ${station(to)}`) : undefined;
          for (const [i, receiver] of model.entries()) {
            if (i === sender || known !== undefined && known !== i) continue;
            if (receiver.isolated && model[sender]!.isolated) continue;
            const out = modelTags(receiver, vlan, tags);
            if (out !== null) expected[i]!.push(envelope({ to, from, tags: out, size, fill: n }));
          }
        }
        assertEquals(got.map((each) => each.splice(0)), expected);
      });
      assertEquals(network.size, where.size);
      for (const port of ports) {
        const { framesIn, framesOut, drops } = port.counters;
        assertEquals(framesIn >= 0 && framesOut >= 0 && drops.error === 0, true);
      }
    }),
    { numRuns: 300 },
  );
});
