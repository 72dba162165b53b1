/** Captures: by the letter of the format, and as tshark reads them. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from "../constants.ts";
import { Frame } from "../frame.ts";
import { buildFrame } from "../offload/testing.ts";
import { openPcapng, PcapngWriter } from "./pcapng.ts";
import { hasTool, installTool, run } from "./tool_testing.ts";

/** A block: its type, what is in it, and its options if `fixed` bytes come before them. */
interface Block {
  readonly type: number;
  readonly body: DataView;
}

function blocks(bytes: Uint8Array): Block[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found: Block[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = view.getUint32(at + 4, true);
    assert(length % 4 === 0 && length >= 12 && at + length <= bytes.length);
    assertEquals(view.getUint32(at + length - 4, true), length);
    found.push({
      type: view.getUint32(at, true),
      body: new DataView(bytes.buffer, bytes.byteOffset + at + 8, length - 12),
    });
    at += length;
  }
  return found;
}

function options(body: DataView, at: number): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>();
  for (;;) {
    const code = body.getUint16(at, true);
    const length = body.getUint16(at + 2, true);
    if (code === 0) {
      assertEquals([length, at + 4], [0, body.byteLength]);
      return found;
    }
    found.set(code, new Uint8Array(body.buffer, body.byteOffset + at + 4, length));
    at += 4 + Math.ceil(length / 4) * 4;
  }
}

const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes);
const le32 = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer);

function record(
  use: (writer: PcapngWriter) => void,
  options: ConstructorParameters<typeof PcapngWriter>[1] = {},
): Uint8Array {
  const parts: number[] = [];
  const writer = new PcapngWriter((part) => part.forEach((byte) => parts.push(byte)), options);
  use(writer);
  writer.flush();
  assertEquals(writer.bytes, parts.length);
  return new Uint8Array(parts);
}

Deno.test("a capture has a section, its interfaces, and each frame with direction, queue and time", () => {
  const frame = fc.record({
    length: fc.oneof(fc.integer({ min: 14, max: 80 }), fc.integer({ min: 14, max: 65_000 })),
    device: fc.nat(2),
    sent: fc.boolean(),
    queue: fc.nat(1023),
    now: fc.integer({ min: 0, max: 2 ** 42 }),
  });
  fc.assert(
    fc.property(
      fc.array(frame, { maxLength: 20 }),
      fc.integer({ min: 1, max: 70_000 }),
      (frames, snapLength) => {
        let now = 0;
        const bytes = record((writer) => {
          const taps = ["one", "two – ∞", ""].map((name) => writer.add(name, name && "a device"));
          frames.forEach(({ length, device, sent, queue, now: time }, i) => {
            now = time + 0.25;
            const frame = new Frame().fromBytes(new Uint8Array(length).fill(i));
            taps[device]!(frame, sent ? "sent" : "received", queue);
          });
          assertEquals(writer.frames, frames.length);
        }, { clock: () => now, snapLength });
        const [section, ...rest] = blocks(bytes);
        assertEquals(section!.type, 0x0a0d0d0a);
        assertEquals(section!.body.getUint32(0, true), 0x1a2b3c4d);
        assertEquals(section!.body.getUint32(4, true), 1);
        assertEquals(section!.body.getBigInt64(8, true), -1n);
        assertEquals(text(options(section!.body, 16).get(4)), "@virtio/net");
        const interfaces = rest.splice(0, 3);
        assertEquals(
          interfaces.map(({ type, body }) => [
            type,
            body.getUint32(0, true),
            body.getUint32(4, true),
            text(options(body, 8).get(2)),
            text(options(body, 8).get(3)),
          ]),
          [
            [1, 1, snapLength, "one", "a device"],
            [1, 1, snapLength, "two – ∞", "a device"],
            [1, 1, snapLength, "", ""],
          ],
        );
        assertEquals(rest.length, frames.length);
        rest.forEach(({ type, body }, i) => {
          const { length, device, sent, queue, now } = frames[i]!;
          const kept = Math.min(length, snapLength);
          const time = body.getUint32(4, true) * 2 ** 32 + body.getUint32(8, true);
          assertEquals([type, body.getUint32(0, true), time], [6, device, now * 1000 + 250]);
          assertEquals([body.getUint32(12, true), body.getUint32(16, true)], [kept, length]);
          const data = new Uint8Array(body.buffer, body.byteOffset + 20, kept);
          assert(data.every((byte) => byte === i));
          const found = options(body, 20 + Math.ceil(kept / 4) * 4);
          assertEquals(found.get(2), le32(sent ? 2 : 1));
          assertEquals(found.get(6), le32(queue));
          assertEquals(found.has(1), false);
        });
      },
    ),
    { numRuns: 50 },
  );
});

/** An unsegmented TCP frame. */
function gso(): Frame {
  const frame = new Frame().fromBytes(
    buildFrame({ ip: 4, transport: "tcp", payload: new Uint8Array(3000), checksum: "partial" }),
  );
  frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN;
  frame.gsoSize = 1448;
  frame.headerLength = 54;
  frame.csumStart = 34;
  frame.csumOffset = 16;
  return frame;
}
const GSO_COMMENT =
  "virtio_net_hdr: NEEDS_CSUM csum_start=34 csum_offset=16 GSO_TCPV4 ECN gso_size=1448 hdr_len=54";

Deno.test("what the net header says is a comment", () => {
  const frame = gso();
  const bytes = record((writer) => {
    const tap = writer.add("x");
    tap(frame, "sent", 0);
    frame.plain();
    frame.flags = VIRTIO_NET_HDR_F_DATA_VALID;
    tap(frame, "sent", 0);
  });
  const comments = blocks(bytes).slice(2).map(({ body }) =>
    text(options(body, 20 + Math.ceil(frame.length / 4) * 4).get(1))
  );
  assertEquals(comments, [GSO_COMMENT, "virtio_net_hdr: DATA_VALID"]);
});

Deno.test("a capture stays within its bound, whole", () => {
  const bytes = record((writer) => {
    const tap = writer.add("x");
    for (let i = 0; i < 100; i++) tap(new Frame().fromBytes(new Uint8Array(1000)), "sent", 0);
    assert(writer.frames > 10 && writer.dropped > 10);
    assertEquals(writer.frames + writer.dropped, 100);
  }, { maxBytes: 30_000 });
  assert(bytes.length <= 30_000);
  blocks(bytes);
  assertThrows(() => record(() => {}, { snapLength: 0 }), RangeError, "snapLength");
  assertThrows(() => record(() => {}, { maxBytes: -1 }), RangeError, "maxBytes");
});

Deno.test("much is given out without being asked, and names that are too long are cut", () => {
  let parts = 0;
  const writer = new PcapngWriter((part) => {
    parts++;
    blocks(part.slice());
  });
  const tap = writer.add("n".repeat(10_000), "ü".repeat(10_000));
  for (let i = 0; i < 20; i++) tap(new Frame().fromBytes(new Uint8Array(65_000)), "sent", 0);
  assert(parts >= 4);
});

Deno.test("a file that takes no more ends the capture, and nothing else", () => {
  const errors: unknown[] = [];
  const capture = openPcapng("/dev/full", {}, (error) => errors.push(error));
  const tap = capture.writer.add("x");
  for (let i = 0; i < 20; i++) tap(new Frame().fromBytes(new Uint8Array(65_000)), "sent", 0);
  assertEquals(errors.length, 1);
  capture.close();
});

await installTool("tshark", "tshark");
const ignore = !await hasTool("tshark", ["--version"], "captures with tshark");

Deno.test({
  name: "tshark reads a capture: interface, direction, queue, comment, lengths and the frames",
  ignore,
  fn: async () => {
    const path = await Deno.makeTempFile({ suffix: ".pcapng" });
    const capture = openPcapng(path, { clock: () => 1_700_000_000_000.5 });
    const one = capture.writer.add("guest one");
    const two = capture.writer.add("guest two", "the other");
    one(gso(), "sent", 0);
    two(gso(), "received", 3);
    const udp = buildFrame({ ip: 6, transport: "udp", payload: new Uint8Array(10), tags: [5] });
    two(new Frame().fromBytes(udp), "sent", 1);
    capture.close();
    const fields = [
      "frame.interface_name",
      "frame.interface_description",
      "frame.packet_flags_direction",
      "frame.interface_queue",
      "frame.comment",
      "frame.len",
      "frame.time_epoch",
      "ip.src",
      "tcp.len",
      "vlan.id",
      "udp.length",
    ];
    const output = await run(
      "tshark",
      ...["-n", "-r", path, "-T", "fields", "-E", "separator=|"],
      ...fields.flatMap((field) => ["-e", field]),
    );
    const time = "1700000000.000500000";
    assertEquals(output.trim().split("\n"), [
      `guest one||0x00000002|0|${GSO_COMMENT}|3054|${time}|10.0.0.1|3000||`,
      `guest two|the other|0x00000001|3|${GSO_COMMENT}|3054|${time}|10.0.0.1|3000||`,
      `guest two|the other|0x00000002|1||${udp.length}|${time}|||5|18`,
    ]);
    await Deno.remove(path);
  },
});
