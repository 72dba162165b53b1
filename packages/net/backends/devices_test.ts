/** Devices on one switch: what one driver sends, another receives, however large, and captures see it on both sides. */
import { assert, assertEquals } from "@std/assert";
import {
  NetDevice,
  type NetDeviceOptions,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from "../mod.ts";
import { buildFrame } from "../offload/testing.ts";
import { plainFrame, RawNetDriver, turns } from "../testing.ts";
import { LoopbackBackend } from "./loopback.ts";
import { PcapngWriter } from "./pcapng.ts";
import { Switch, type SwitchPort } from "./switch.ts";
import { station } from "./switch_testing.ts";

/** A device on a switch, and its driver with buffers to receive into. */
async function guest(
  network: Switch,
  last: number,
  options: Partial<NetDeviceOptions> = {},
  wanted = ~0n,
): Promise<{ device: NetDevice; driver: RawNetDriver; port: SwitchPort }> {
  const port = network.port({ name: `guest ${last}` });
  const device = new NetDevice({ backend: port, mac: new Uint8Array(station(last)), ...options });
  const driver = await RawNetDriver.open(device, { wanted });
  driver.postMany(0, 60, 4096);
  await turns(1);
  return { device, driver, port };
}

const hello = (from: number): Uint8Array => {
  const bytes = plainFrame(60, from, [255, 255, 255, 255, 255, 255]);
  bytes.set(station(from), 6);
  return bytes;
};

/** The frames that a capture has kept. */
function captured(parts: readonly Uint8Array[]): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (const part of parts) {
    const view = new DataView(part.buffer, part.byteOffset, part.length);
    for (let at = 0; at < part.length; at += view.getUint32(at + 4, true)) {
      if (view.getUint32(at, true) !== 6) continue;
      frames.push(part.slice(at + 28, at + 28 + view.getUint32(at + 20, true)));
    }
  }
  return frames;
}

async function exchange(both: boolean): Promise<void> {
  const parts: Uint8Array[] = [];
  const capture = new PcapngWriter((part) => parts.push(part.slice()));
  const network = new Switch();
  const one = await guest(network, 1, both ? { tap: capture.add("one") } : {});
  const two = await guest(network, 2, { tap: capture.add("two") });
  two.driver.send(hello(2));
  await turns(2);
  assertEquals(one.driver.frames().map(({ bytes }) => bytes), [hello(2)]);
  for (const length of [60, 255, 256, 257, 1514, 9000, 60_000]) {
    const bytes = plainFrame(length, length, station(2));
    bytes.set(station(1), 6);
    capture.flush();
    parts.length = 0;
    one.driver.send(bytes, {}, { cuts: [100, 50, 300] });
    await turns(2);
    assertEquals(two.driver.frames().map((frame) => frame.bytes), [bytes]);
    capture.flush();
    assertEquals(captured(parts), both ? [bytes, bytes] : [bytes], `${length} bytes`);
    two.driver.postMany(0, Math.ceil((length + 12) / 4096), 4096);
  }
  assertEquals(one.device.stats.filtered, 0);
  assertEquals(two.port.counters.framesOut, 7);
}

Deno.test("a frame goes from driver to driver through the switch, and both captures have all of it", async () => {
  await exchange(true);
});

Deno.test("the receiver's capture has all of a frame, though it went from memory to memory", async () => {
  await exchange(false);
});

Deno.test("an unsegmented frame stays so for the driver that takes it, and is cut for the one that does not", async () => {
  const network = new Switch();
  const one = await guest(network, 1);
  const whole = await guest(network, 2);
  const cut = await guest(network, 3, {}, ~VIRTIO_NET_F_GUEST_TSO4);
  for (const { driver } of [whole, cut]) driver.send(hello(driver === whole.driver ? 2 : 3));
  await turns(2);
  for (const [receiver, last] of [[whole, 2], [cut, 3]] as const) {
    receiver.driver.frames();
    const bytes = buildFrame({
      ip: 4,
      transport: "tcp",
      payload: new Uint8Array(20_000).fill(last),
      checksum: "partial",
      from: station(1),
      to: station(last),
    });
    one.driver.send(bytes, {
      flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
      gsoType: VIRTIO_NET_HDR_GSO_TCPV4,
      hdrLen: 54,
      gsoSize: 1448,
      csumStart: 34,
      csumOffset: 16,
    });
    await turns(2);
    const got = receiver.driver.frames();
    if (receiver === whole) {
      assertEquals(got.map((frame) => frame.bytes), [bytes]);
      assertEquals(got[0]!.header.gsoType, VIRTIO_NET_HDR_GSO_TCPV4);
      continue;
    }
    assertEquals(got.length, 14);
    assert(got.every(({ header }) => header.gsoType === VIRTIO_NET_HDR_GSO_NONE));
    const payload = got.reduce((sum, { bytes }) => sum + bytes.length - 54, 0);
    assertEquals(payload, 20_000);
  }
});

Deno.test("a driver sees its port go down and come back", async () => {
  const network = new Switch();
  const { device, port } = await guest(network, 1);
  assert(device.linkUp);
  port.up = false;
  assert(!device.linkUp);
  assertEquals(device.config.view.getUint16(6, true) & 1, 0);
  port.up = true;
  assertEquals(device.config.view.getUint16(6, true) & 1, 1);
  port.close();
  assert(!device.linkUp);
});

Deno.test("a driver on a loopback receives what it sends to itself", async () => {
  const backend = new LoopbackBackend();
  const device = new NetDevice({ backend, mac: new Uint8Array(station(1)) });
  const driver = await RawNetDriver.open(device);
  driver.postMany(0, 60, 2048);
  await turns(1);
  const frames = [60, 300, 5000].map((length) => plainFrame(length, length, station(1)));
  for (const bytes of frames) driver.send(bytes);
  await turns(2);
  assertEquals(driver.frames().map(({ bytes }) => bytes), frames);
  assertEquals([backend.frames, backend.dropped, backend.overruns], [3, 0, 0]);
});
