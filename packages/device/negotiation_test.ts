import { assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import {
  CORE_FEATURES,
  DeviceState,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_SR_IOV,
  VIRTIO_F_VERSION_1,
} from "./mod.ts";
import { AGREED, FOUND, LIVE, Rig, TestDevice } from "./testing.ts";

Deno.test("device state: FEATURES_OK is refused for bits that were not offered, and can be tried again", () => {
  const rig = new Rig({ features: VIRTIO_F_VERSION_1 });
  rig.status = FOUND;
  for (const bit of [0n, 29n, 34n, 63n, 64n, 127n]) {
    rig.accept(VIRTIO_F_VERSION_1 | (1n << bit));
    rig.status = AGREED;
    assertEquals([rig.status, rig.state.features], [FOUND, 0n], `bit ${bit}`);
  }
  rig.status = LIVE;
  assertEquals([rig.status, rig.device.starts], [FOUND, 0], "DRIVER_OK needs FEATURES_OK");
  rig.accept(VIRTIO_F_VERSION_1);
  rig.status = AGREED;
  assertEquals(rig.status, AGREED);
});

Deno.test("device state: FEATURES_OK is refused without VERSION_1, and by a device that cannot work with the subset", () => {
  const rig = new Rig({ device: new TestDevice({ features: 0b11n }) });
  rig.status = FOUND;
  rig.accept(0n);
  rig.status = AGREED;
  assertEquals(rig.status, FOUND);
  rig.device.acceptable = (features) => (features & 0b11n) !== 0b10n;
  rig.accept(VIRTIO_F_VERSION_1 | 0b10n);
  rig.status = AGREED;
  assertEquals(rig.status, FOUND);
  rig.accept(VIRTIO_F_VERSION_1 | 0b11n);
  rig.status = AGREED;
  assertEquals(rig.status, AGREED);
});

Deno.test("device state: features are frozen once they are agreed on", () => {
  const rig = new Rig();
  rig.negotiate();
  rig.accept(CORE_FEATURES);
  assertEquals(rig.state.readDriverFeatures(1), 1);
  assertEquals(rig.state.features, VIRTIO_F_VERSION_1);
});

Deno.test("device state: feature words are 32 bits, and beyond the fourth there is nothing", () => {
  const features = 0x8000_0001n | (1n << 63n) | (1n << 64n) | (1n << 127n);
  const rig = new Rig({ device: new TestDevice({ features: features & ~(1n << 31n) }) });
  assertEquals(rig.state.readDeviceFeatures(0) & 0xff_ffff, 1);
  assertEquals(rig.state.readDeviceFeatures(1) >>> 31, 1);
  assertEquals(rig.state.readDeviceFeatures(2), 1);
  assertEquals(rig.state.readDeviceFeatures(3), 0x8000_0000);
  for (const word of [4, 0xffff_ffff, -1, NaN]) {
    assertEquals(rig.state.readDeviceFeatures(word), 0);
    rig.state.writeDriverFeatures(word, 0xffff_ffff);
    assertEquals(rig.state.readDriverFeatures(word), 0);
  }
  assertEquals([0, 1, 2, 3].map((word) => rig.state.readDriverFeatures(word)), [0, 0, 0, 0]);
  rig.state.writeDriverFeatures(3, 0xffff_fffe);
  rig.state.writeDriverFeatures(3, 0x8000_0000);
  assertEquals(rig.state.readDriverFeatures(3), 0x8000_0000);
});

Deno.test("device state: what cannot be offered is refused when the device is put together", () => {
  const options = {
    memory: GuestMemory.allocate(0x1000),
    interrupt: { queue: () => {}, config: () => {} },
    carries: CORE_FEATURES & ~VIRTIO_F_NOTIF_CONFIG_DATA,
  };
  for (const bit of [24n, 32n, 34n, 40n, 43n, 44n, 49n, 128n]) {
    assertThrows(
      () => new DeviceState(new TestDevice({ features: 1n << bit }), options),
      TypeError,
      "feature bits of its type",
    );
  }
  for (const bit of [VIRTIO_F_SR_IOV, VIRTIO_F_ACCESS_PLATFORM, 1n << 44n, 1n]) {
    assertThrows(
      () => new DeviceState(new TestDevice(), { ...options, features: bit }),
      TypeError,
      "Cannot offer",
    );
  }
  const state = new DeviceState(new TestDevice(), { ...options, features: CORE_FEATURES });
  assertEquals(state.offered, CORE_FEATURES & ~VIRTIO_F_NOTIF_CONFIG_DATA);
  const plain = new DeviceState(new TestDevice(), { ...options, features: 0n });
  assertEquals(plain.offered, VIRTIO_F_VERSION_1, "always offered");
});

Deno.test("device state: a feature is not offered, and not agreed on, without what it requires", () => {
  const requires = [[0b010n, 0b001n], [0b100n, VIRTIO_F_RING_PACKED]] as const;
  assertThrows(
    () => new Rig({ device: new TestDevice({ features: 0b010n, requires }) }),
    TypeError,
    "feature 0x2 without",
  );
  assertThrows(
    () => new Rig({ device: new TestDevice({ features: 0b100n, requires }), features: 1n << 32n }),
    TypeError,
    "feature 0x4 without",
  );
  const rig = new Rig({ device: new TestDevice({ features: 0b111n, requires }) });
  for (const [features, agreed] of [[0b010n, false], [0b011n, true], [0b100n, false], [0n, true]]) {
    rig.status = 0;
    rig.negotiate(features as bigint);
    assertEquals(rig.status, agreed ? AGREED : FOUND, `${features}`);
  }
});
