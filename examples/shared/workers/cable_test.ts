/** Frames over a cable between two ends of one channel. */
import { assertEquals } from "@std/assert";
import { Frame, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "@virtio/net";
import { Cable } from "./cable.ts";

const LENGTH = 1514;

function frameOf(number: number): Frame {
  const bytes = new Uint8Array(LENGTH);
  new DataView(bytes.buffer).setUint32(20, number);
  return new Frame().fromBytes(bytes);
}

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

Deno.test("cable: no frame is lost while the other end is busy, and all come in their order", async () => {
  const { port1, port2 } = new MessageChannel();
  const [here, there] = [new Cable(port1), new Cable(port2)];
  try {
    const got: number[] = [];
    there.connect({
      offloads: there.offloads,
      deliver: (frame) => got.push(frame.view.getUint32(20)),
    });
    for (let i = 0; i < 4000; i++) here.deliver(frameOf(i));
    while (got.length < 4000) await turn();
    assertEquals(got, Array.from({ length: 4000 }, (_, i) => i));
    assertEquals([here.dropped, there.dropped], [0, 0]);
  } finally {
    here.close();
    there.close();
  }
});

Deno.test("cable: what is under way is bounded, what is dropped is counted, and there is room again later", async () => {
  const { port1, port2 } = new MessageChannel();
  const [here, there] = [new Cable(port1), new Cable(port2)];
  try {
    let got = 0;
    there.connect({ offloads: there.offloads, deliver: () => got++ });
    const most = Math.floor((8 << 20) / (LENGTH + 256));
    for (let round = 1; round <= 3; round++) {
      for (let i = 0; i < 3 * most; i++) here.deliver(frameOf(i));
      while (got + here.dropped < 3 * most * round) await turn();
      // A quarter of the room may not be told of yet.
      assertEquals(got > 0.7 * most * round && got <= most * round, true, `${got} of ${most}`);
    }
  } finally {
    here.close();
    there.close();
  }
});

Deno.test("cable: a frame says what is still to be done with it; without anybody there it is dropped", async () => {
  const { port1, port2 } = new MessageChannel();
  const [here, there] = [new Cable(port1), new Cable(port2)];
  try {
    const frame = frameOf(7);
    Object.assign(frame, {
      flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
      gsoType: 1,
      headerLength: 54,
      gsoSize: 1460,
      csumStart: 34,
      csumOffset: 16,
    });
    here.deliver(frame);
    while (there.dropped === 0) await turn();
    const headers: number[][] = [];
    there.connect({
      offloads: there.offloads,
      deliver: ({ flags, gsoType, headerLength, gsoSize, csumStart, csumOffset }) =>
        headers.push([flags, gsoType, headerLength, gsoSize, csumStart, csumOffset]),
    });
    here.deliver(frame);
    while (headers.length === 0) await turn();
    assertEquals(headers, [[VIRTIO_NET_HDR_F_NEEDS_CSUM, 1, 54, 1460, 34, 16]]);
  } finally {
    here.close();
    there.close();
  }
});
