/** A cable of a BroadcastChannel: frames cross as they were sent, and what is no frame does not. */
import { assertEquals } from "@std/assert";
import { Frame, Offload, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4 } from "@virtio/net";
import { buildFrame } from "../offload/testing.ts";
import { BroadcastBackend } from "./broadcast.ts";

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !done(); i++) await new Promise((resolve) => setTimeout(resolve, 2));
}

const payload = new Uint8Array(5000).fill(7);
const bytes = buildFrame({ ip: 4, transport: "tcp", payload });

function gsoFrame(): Frame {
  const frame = new Frame().fromBytes(bytes);
  frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV4;
  frame.gsoSize = 1000;
  frame.headerLength = 54;
  frame.csumStart = 34;
  frame.csumOffset = 16;
  return frame;
}

Deno.test("broadcast: a frame crosses whole to who can take it, in segments to who cannot, and never back", async () => {
  using a = new BroadcastBackend("test cable");
  using b = new BroadcastBackend("test cable");
  using c = new BroadcastBackend("test cable");
  using other = new BroadcastBackend("another cable");
  const got: Record<string, Frame[]> = { a: [], b: [], c: [], other: [] };
  const sink = (name: string, offloads: number) => ({
    offloads,
    deliver: (frame: Frame) => void got[name]!.push(new Frame().fromFrame(frame)),
  });
  a.connect(sink("a", Offload.all));
  b.connect(sink("b", Offload.all));
  c.connect(sink("c", 0));
  other.connect(sink("other", Offload.all));
  a.deliver(gsoFrame());
  await until(() => got.b!.length === 1 && got.c!.length === 5);
  assertEquals([got.a!.length, got.b!.length, got.c!.length, got.other!.length], [0, 1, 5, 0]);
  const [whole] = got.b!;
  assertEquals(whole!.bytes, bytes);
  assertEquals([whole!.gsoType, whole!.gsoSize], [VIRTIO_NET_HDR_GSO_TCPV4, 1000]);
  assertEquals(got.c!.map((frame) => [frame.length, frame.needs]), Array(5).fill([1054, 0]));
});

Deno.test("broadcast: what is no frame, or lies in its header, is dropped and counted", async () => {
  using backend = new BroadcastBackend("hostile cable");
  let frames = 0;
  backend.connect({ offloads: Offload.all, deliver: () => frames++ });
  const channel = new BroadcastChannel("hostile cable");
  const none = [0, 0, 0, 0, 0, 0];
  const messages = [
    null,
    5,
    {},
    { frame: [1, 2, 3], header: none },
    { frame: new Uint8Array(13), header: none },
    { frame: new Uint8Array(70_000), header: none },
    { frame: new Uint8Array(60), header: none.slice(1) },
    { frame: new Uint8Array(60), header: [1, 0, 0, 0, 59, 100] },
    { frame: new Uint8Array(60), header: [1, 1, 0, 0, 34, 16] },
    { frame: new Uint8Array(60), header: [0, 0, 0, 0, 0, -1] },
    { frame: new Uint8Array(60), header: [0, 0, 0, 0, 0, 1e9] },
  ];
  for (const message of messages) channel.postMessage(message);
  channel.postMessage({ frame: new Uint8Array(60), header: none });
  await until(() => frames > 0);
  assertEquals([frames, backend.counters.dropped], [1, messages.length]);
  channel.close();
});
