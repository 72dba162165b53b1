import { assert, assertEquals } from "@std/assert";
import {
  ConfigSpace,
  DeviceId,
  QueueDevice,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { EventFd, MemoryFile, UnixSocket } from "@virtio/linux";
import { Channel } from "../protocol/channel.ts";
import { ProtocolFeature as P } from "../protocol/features.ts";
import { BackEndRequest, FrontEndRequest as Request } from "../protocol/messages.ts";
import * as payloads from "../protocol/payloads.ts";
import { rarpFrame } from "./net_messages.ts";
import {
  EchoDevice,
  Front,
  GUEST_BASE,
  live,
  settle,
  SIZE,
  until,
  USER_BASE,
} from "./front_testing.ts";

const SPLIT = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;
const PACKED = SPLIT | VIRTIO_F_RING_PACKED;
const state = (index: number, value: number) => payloads.encodeVringState({ index, value });

for (const [name, features] of [["split", SPLIT], ["packed", PACKED]] as const) {
  Deno.test(`A ${name} ring is served, stopped, and goes on where it was`, async () => {
    const front = await live(new EchoDevice(), features, P.MQ);
    for (let token = 0; token < 20; token++) front.request(0, token);
    assertEquals((await front.used(0, 20)).length, 20);
    assert(front.calls[0]!.take());
    // Around the ring's end, with a stop each time.
    for (let round = 0; round < 12; round++) {
      const answer = await front.ask(Request.GET_VRING_BASE, state(0, 0));
      const { index, value } = payloads.decodeVringState(answer.payload);
      assertEquals(index, 0);
      // While it is stopped nothing is served.
      front.request(0, 30);
      await settle();
      assertEquals(front.queues[0]!.take(), -1);
      front.tell(0, value);
      front.request(0, 31);
      assertEquals(await front.used(0, 2), [30, 31]);
    }
    assertEquals(front.errors, []);
    await front.close();
  });

  Deno.test(`A ${name} ring that is disabled keeps its place`, async () => {
    const front = await live(new EchoDevice(), features, P.MQ);
    front.request(0, 1);
    assertEquals(await front.used(0, 1), [1]);
    front.enable(0, false);
    await front.ask(Request.GET_FEATURES);
    front.request(0, 2);
    await settle();
    assertEquals(front.queues[0]!.take(), -1);
    front.enable(0);
    assertEquals(await front.used(0, 1), [2]);
    await front.close();
  });

  Deno.test(`Memory that is replaced while a ${name} ring is live loses no request`, async () => {
    const device = new EchoDevice();
    const front = await live(device, features, P.MQ | P.REPLY_ACK | P.CONFIGURE_MEM_SLOTS);
    for (let round = 0; round < 5; round++) {
      front.request(0, round);
      if (round % 2 === 0) {
        front.share();
      } else {
        // Another region comes and goes.
        const region = {
          guestAddress: BigInt(GUEST_BASE + 2 * SIZE),
          userAddress: BigInt(USER_BASE + 2 * SIZE),
          size: 0x1000n,
          offset: 0n,
        };
        const file = MemoryFile.create(0x1000);
        assert(
          await front.done(Request.ADD_MEM_REG, payloads.encodeRegion(region), [file.descriptor]),
        );
        assert(
          await front.done(Request.REM_MEM_REG, payloads.encodeRegion(region), [file.descriptor]),
        );
        file.close();
      }
      front.request(0, 10 + round);
      assertEquals(await front.used(0, 2), [round, 10 + round]);
    }
    assertEquals(front.errors, []);
    await front.close();
  });
}

Deno.test("Without protocol features a ring is enabled at once", async () => {
  const front = await live(new EchoDevice(), SPLIT, 0n);
  front.request(0, 3);
  assertEquals(await front.used(0, 1), [3]);
  await front.close();
});

Deno.test("Features that build on one that the front end keeps to itself, as QEMU does, are not the device's", async () => {
  const device = Object.assign(new EchoDevice(), {
    features: 7n,
    requires: [[1n, 2n], [4n, 1n]] as const,
  });
  let seen = 0n;
  const start = device.start.bind(device);
  device.start = (activation) => {
    seen = activation.features;
    start(activation);
  };
  const front = await live(device, SPLIT | 5n, P.MQ);
  front.request(0, 3);
  assertEquals(await front.used(0, 1), [3]);
  assertEquals(seen & 7n, 0n);
  await front.close();
});

Deno.test("A packed ring that is given base 0, as User Mode Linux does, begins in its first round", async () => {
  const front = new Front(new EchoDevice());
  await front.negotiate(PACKED, P.MQ);
  front.share();
  front.setUp(0, PACKED, 0);
  front.enable(0);
  front.request(0, 3);
  assertEquals(await front.used(0, 1), [3]);
  await front.close();
});

Deno.test("Interrupts go to another descriptor from the moment it is given, and nowhere without one", async () => {
  const front = await live(new EchoDevice(), VIRTIO_F_VERSION_1, P.MQ);
  front.request(0, 1);
  await front.used(0, 1);
  assert(front.calls[0]!.take());
  const other = EventFd.create();
  const which = payloads.encodeVringDescriptor({ index: 0, none: false });
  front.send(Request.SET_VRING_CALL, which, [other.descriptor]);
  await front.ask(Request.GET_FEATURES);
  front.request(0, 2);
  await front.used(0, 1);
  assertEquals([front.calls[0]!.take(), other.take()], [false, true]);
  front.send(Request.SET_VRING_CALL, payloads.encodeVringDescriptor({ index: 0, none: true }));
  await front.ask(Request.GET_FEATURES);
  front.request(0, 3);
  await front.used(0, 1);
  assertEquals([front.calls[0]!.take(), other.take()], [false, false]);
  other.close();
  await front.close();
});

Deno.test("A ring without a kick is looked at all the time", async () => {
  const front = await live(new EchoDevice(), SPLIT, P.MQ);
  front.send(Request.SET_VRING_KICK, payloads.encodeVringDescriptor({ index: 0, none: true }));
  await front.ask(Request.GET_FEATURES);
  const [kick] = front.kicks;
  front.kicks[0] = { signal: () => true, close: () => kick!.close() } as unknown as EventFd;
  front.request(0, 9);
  assertEquals(await front.used(0, 1), [9]);
  await front.close();
});

Deno.test("Kicks and interrupts in band are messages", async () => {
  const device = new EchoDevice();
  const front = new Front(device, { inband: true });
  const protocol = P.MQ | P.INBAND_NOTIFICATIONS | P.BACKEND_REQ | P.REPLY_ACK;
  await front.negotiate(VIRTIO_F_VERSION_1, protocol);
  const [here, there] = UnixSocket.pair();
  assert(await front.done(Request.SET_BACKEND_REQ_FD, undefined, [there.descriptor]));
  there.close();
  const back = new Channel(here);
  front.share();
  front.setUp(0, VIRTIO_F_VERSION_1);
  // No descriptors after all.
  await front.ask(Request.GET_VRING_BASE, state(0, 0));
  front.enable(0);
  front.request(0, 7);
  assert(await front.done(Request.VRING_KICK, state(0, 0)));
  assertEquals(await front.used(0, 1), [7]);
  let call = back.receive();
  await until(() => (call ??= back.receive()) !== null, "an interrupt");
  assertEquals(call!.request, BackEndRequest.VRING_CALL.id);
  assertEquals(payloads.decodeVringState(call!.payload), { index: 0, value: 0 });
  assert(call!.needsReply);
  front.request(0, 8);
  assert(await front.done(Request.VRING_KICK, state(0, 0)));
  assertEquals(await front.used(0, 1), [8]);
  back.close();
  await front.close();
});

Deno.test("A driver that breaks its ring costs itself the device, until it resets it", async () => {
  const device = new EchoDevice();
  const front = new Front(device);
  await front.negotiate(SPLIT, P.MQ | P.STATUS | P.RESET_DEVICE | P.REPLY_ACK);
  front.share();
  front.setUp(0, SPLIT);
  const broken = EventFd.create();
  front.send(Request.SET_VRING_ERR, payloads.encodeVringDescriptor({ index: 0, none: false }), [
    broken.descriptor,
  ]);
  assert(await front.done(Request.SET_STATUS, payloads.encodeU64(15n)));
  front.enable(0);
  await front.ask(Request.GET_FEATURES);
  // The available index jumps ahead.
  front.memory.writeU16(front.config(0).driverArea + 2, 1000);
  front.kicks[0]!.signal();
  await until(() => front.errors.length > 0, "an error");
  assert(front.errors[0]!.message.includes("2.7.6.1"), front.errors[0]!.message);
  assert(broken.take());
  const status = async () => payloads.decodeU64((await front.ask(Request.GET_STATUS)).payload);
  assertEquals(await status(), 15n | 64n);
  assert(await front.done(Request.RESET_DEVICE));
  assertEquals(await status(), 0n);
  front.setUp(0, SPLIT, 0);
  front.request(0, 4);
  assertEquals(await front.used(0, 1), [4]);
  broken.close();
  await front.close();
});

Deno.test("A front end that knows no status begins anew with its features", async () => {
  const front = await live(new EchoDevice(), SPLIT, P.MQ);
  await front.ask(Request.GET_FEATURES);
  front.memory.writeU16(front.config(0).driverArea + 2, 1000);
  front.kicks[0]!.signal();
  await until(() => front.errors.length > 0, "an error");
  // Nothing else sets it going again.
  front.enable(0, false);
  front.enable(0);
  front.share();
  await front.ask(Request.GET_FEATURES);
  assertEquals([front.session.failed, front.errors.length], [true, 1]);
  await front.ask(Request.GET_VRING_BASE, state(0, 0));
  front.send(Request.SET_FEATURES, payloads.encodeU64(SPLIT | 1n << 30n));
  front.setUp(0, SPLIT, 0);
  front.request(0, 4);
  assertEquals(await front.used(0, 1), [4]);
  await front.close();
});

Deno.test("A reset in the middle of requests drops them, and none is answered afterwards", async () => {
  const device = new EchoDevice();
  const front = await live(device, SPLIT, P.MQ | P.RESET_DEVICE | P.REPLY_ACK);
  device.hold = true;
  front.request(0, 1);
  front.request(0, 2);
  await until(() => device.held.length === 2, "both requests");
  assert(await front.done(Request.RESET_DEVICE));
  device.release();
  device.release();
  await settle();
  assertEquals(front.memory.readU16(front.config(0).deviceArea + 2), 0);
  await front.close();
});

for (const [name, features] of [["split", SPLIT], ["packed", PACKED]] as const) {
  Deno.test(`A status of 0 before GET_VRING_BASE, as QEMU 7.2 stops a machine, loses neither requests nor places, ${name}`, async () => {
    const device = new EchoDevice();
    const front = await live(device, features, P.MQ | P.STATUS | P.REPLY_ACK);
    front.request(0, 3);
    assertEquals(await front.used(0, 1), [3]);
    device.hold = true;
    front.request(0, 4);
    await until(() => device.held.length === 1, "the request");
    const stopped = front.done(Request.SET_STATUS, payloads.encodeU64(0n));
    await settle();
    device.release();
    assert(await stopped);
    assertEquals(await front.used(0, 1), [4]);
    const answer = await front.ask(Request.GET_VRING_BASE, state(0, 0));
    const { value } = payloads.decodeVringState(answer.payload);
    // Two chains, each of three slots where slots are counted.
    assertEquals(value & 0x7fff, name === "split" ? 2 : 6);
    await front.close();
  });
}

Deno.test("A stop waits for what is in flight, and answers with what was taken", async () => {
  const device = new EchoDevice();
  const front = await live(device, SPLIT, P.MQ);
  device.hold = true;
  front.request(0, 1);
  await until(() => device.held.length === 1, "the request");
  front.send(Request.GET_VRING_BASE, state(0, 0));
  await settle();
  assertEquals(front.channel.receive(), null);
  device.release();
  const answer = await front.receive();
  assertEquals(payloads.decodeVringState(answer!.payload), { index: 0, value: 1 });
  assertEquals(await front.used(0, 1), [1]);
  await front.close();
});

Deno.test("The configuration is read whole, beyond its end too, and its changes are told", async () => {
  const device = new EchoDevice();
  const front = await live(device, SPLIT, P.MQ | P.CONFIG | P.BACKEND_REQ | P.REPLY_ACK);
  const [here, there] = UnixSocket.pair();
  assert(await front.done(Request.SET_BACKEND_REQ_FD, undefined, [there.descriptor]));
  there.close();
  const back = new Channel(here);
  const wanted = payloads.encodeConfig({ offset: 0, flags: 0, bytes: new Uint8Array(12).fill(9) });
  const answer = await front.ask(Request.GET_CONFIG, wanted);
  assertEquals(payloads.decodeConfig(answer.payload).bytes, new Uint8Array(12));
  device.config.update(() => {});
  let change = back.receive();
  await until(() => (change ??= back.receive()) !== null, "a change");
  assertEquals(change!.request, BackEndRequest.CONFIG_CHANGE_MSG.id);
  back.close();
  await front.close();
});

Deno.test("Two rings with one kick are both served", async () => {
  const front = await live(new EchoDevice(), VIRTIO_F_VERSION_1, P.MQ);
  front.kicks[1] = front.kicks[0]!;
  front.setUp(1, VIRTIO_F_VERSION_1);
  front.enable(1);
  for (let token = 0; token < 10; token++) {
    front.request(token % 2, token);
    assertEquals(await front.used(token % 2, 1), [token]);
  }
  front.kicks.pop();
  await front.close();
});

Deno.test("A network device is counted by pairs, announces itself, and takes an MTU that it shows or less", async () => {
  const VIRTIO_NET_F_MTU = 1n << 3n;
  class NetLike extends QueueDevice {
    constructor() {
      const config = new ConfigSpace(12);
      config.view.setUint16(10, 1500, true);
      super({ type: DeviceId.net, queueSizes: [64, 64, 64], features: VIRTIO_NET_F_MTU, config });
    }
    protected override handle(): void {}
  }
  const announced: Uint8Array[] = [];
  const front = new Front(new NetLike(), { announce: (mac) => void announced.push(mac) });
  await front.negotiate(SPLIT | VIRTIO_NET_F_MTU, P.MQ | P.RARP | P.NET_MTU | P.REPLY_ACK);
  const count = await front.ask(Request.GET_QUEUE_NUM);
  assertEquals(payloads.decodeU64(count.payload), 1n);
  for (
    const [mtu, taken] of [[1500n, true], [1400n, true], [1501n, false], [67n, false]] as const
  ) {
    assertEquals(await front.done(Request.NET_SET_MTU, payloads.encodeU64(mtu)), taken);
  }
  const mac = new Uint8Array([2, 0, 0, 0, 0, 7]);
  const payload = new Uint8Array(8);
  payload.set(mac);
  assert(await front.done(Request.SEND_RARP, payload));
  assertEquals(announced, [mac]);
  const frame = rarpFrame(mac);
  assertEquals(frame.length, 60);
  assertEquals([...frame.subarray(0, 14)], [255, 255, 255, 255, 255, 255, ...mac, 0x80, 0x35]);
  assertEquals(frame.subarray(32, 38), mac);
  await front.close();
});
