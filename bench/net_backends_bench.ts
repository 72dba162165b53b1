/**
 * Back ends of the network device. Run by `deno bench bench/net_backends_bench.ts`.
 *
 * - switch: what a frame costs from port to port, beside calling the receiver directly: to a station that is known, there and
 *   back, with a table that is full, between VLANs' edges (a tag is inserted or removed, which moves the frame's bytes), and
 *   to all of 4 or 64 ports. Receivers only count, so that nothing is copied but for tags.
 * - stations: looking one up and learning it, in tables of different sizes. Guards that the size does not matter but for
 *   what the caches of the processor hold.
 * - stream: cutting a stream into frames, and collecting frames to be written; 60, 1,514 and 65,000 bytes.
 * - capture: a frame into a capture.
 *
 * Each iteration is 1000 frames, so that microseconds a run read as nanoseconds a frame.
 */
import { Frame, type FrameSink, Offload } from "@virtio/net";
import { PcapngWriter } from "@virtio/net/pcapng";
import { Switch, type SwitchPort, type SwitchPortOptions } from "@virtio/net/switch";
import { MacTable } from "../packages/net/backends/mac_table.ts";
import { StreamJoiner, StreamSplitter } from "../packages/net/backends/stream_framing.ts";

const TIMES = 1000;
let received = 0;
const sink: FrameSink = { offloads: Offload.all, deliver: () => void received++ };

/** A frame between stations that are named by their last bytes. */
function letter(to: number, from: number, tag = 0, size = 1514): Frame {
  const frame = new Frame().fromBytes(new Uint8Array(size));
  frame.buffer.set(to === 255 ? [255, 255, 255, 255, 255, 255] : [2, 0, 0, 0, 0, to]);
  frame.buffer.set([2, 0, 0, 0, 0, from], 6);
  if (tag !== 0) frame.buffer.set([0x81, 0, tag >> 8, tag & 255], 12);
  return frame;
}

/** Two ports where stations 1 and 2 were heard, and what else there is. */
function pair(
  one: SwitchPortOptions = {},
  two: SwitchPortOptions = {},
  tag = 0,
): { network: Switch; a: SwitchPort; b: SwitchPort } {
  const network = new Switch({ maxStations: 10_000 });
  const a = network.port({ maxStations: 10_000, flood: { rate: Infinity }, ...one });
  const b = network.port(two);
  a.connect(sink);
  b.connect(sink);
  a.send(letter(2, 1));
  b.send(letter(1, 2, tag));
  return { network, a, b };
}

{
  const { a, b } = pair();
  const [there, back] = [letter(2, 1), letter(1, 2)];
  Deno.bench("the receiver called directly", { group: "switch", baseline: true }, () => {
    for (let i = 0; i < TIMES; i++) sink.deliver(there);
  });
  Deno.bench("to a station that is known", { group: "switch" }, () => {
    for (let i = 0; i < TIMES; i++) a.send(there);
  });
  Deno.bench("there and back in turn", { group: "switch" }, () => {
    for (let i = 0; i < TIMES; i += 2) {
      a.send(there);
      b.send(back);
    }
  });
}
{
  const { a } = pair();
  const hello = letter(2, 1);
  for (let i = 0; i < 9990; i++) {
    hello.view.setUint32(7, i);
    a.send(hello);
  }
  const frames = Array.from({ length: 64 }, (_, i) => {
    const frame = letter(2, 1);
    frame.view.setUint32(7, i * 150);
    return frame;
  });
  Deno.bench("from 64 of 10,000 stations in turn", { group: "switch" }, () => {
    for (let i = 0; i < TIMES; i++) a.send(frames[i & 63]!);
  });
}
{
  const { a, b } = pair({ vlan: 7 }, { trunk: { native: null } }, 7);
  const [there, back] = [letter(2, 1), letter(1, 2, 7)];
  Deno.bench("1,514 bytes, a tag inserted", { group: "switch" }, () => {
    for (let i = 0; i < TIMES; i++) a.send(there);
  });
  Deno.bench("1,514 bytes, a tag removed", { group: "switch" }, () => {
    for (let i = 0; i < TIMES; i++) b.send(back);
  });
}
for (const ports of [4, 64]) {
  const { network, a } = pair();
  for (let i = 2; i < ports; i++) network.port().connect(sink);
  const all = letter(255, 1);
  Deno.bench(`to all of ${ports} ports`, { group: "switch" }, () => {
    for (let i = 0; i < TIMES; i++) a.send(all);
  });
}

for (const stations of [16, 1024, 65_536]) {
  const table = new MacTable(stations, 2, 300_000, 1);
  for (let i = 0; i < stations; i++) table.learn(0x020000, i, 1, i & 1, stations, 0);
  let at = 0;
  Deno.bench(`${stations} stations: one learned, one found`, {
    group: "stations",
    baseline: stations === 16,
  }, () => {
    for (let i = 0; i < TIMES; i++) {
      at = (at + 40_503) & (stations - 1);
      table.learn(0x020000, at, 1, at & 1, stations, 1);
      received += table.find(0x020000, at ^ 1, 1, 1);
    }
  });
}

for (const size of [60, 1514, 65_000]) {
  const frame = letter(2, 1, 0, size);
  const batch = Math.min(100, Math.floor(1_000_000 / size));
  const joiner = new StreamJoiner(1_048_576);
  for (let i = 0; i < batch; i++) joiner.push(frame);
  const chunk = joiner.bytes.slice();
  const splitter = new StreamSplitter(() => void received++);
  Deno.bench(`${size} bytes, cut`, { group: `stream, ${size}`, baseline: true }, () => {
    for (let i = 0; i < TIMES; i += batch) splitter.push(chunk, chunk.length);
  });
  Deno.bench(`${size} bytes, collected`, { group: `stream, ${size}` }, () => {
    for (let i = 0; i < TIMES; i++) {
      if (!joiner.push(frame)) {
        joiner.length = 0;
        joiner.push(frame);
      }
    }
  });
}

{
  const capture = new PcapngWriter((bytes) => void (received += bytes.length));
  const tap = capture.add("bench");
  const frame = letter(2, 1);
  Deno.bench("1,514 bytes into a capture", () => {
    for (let i = 0; i < TIMES; i++) tap(frame, "sent", 0);
  });
}
