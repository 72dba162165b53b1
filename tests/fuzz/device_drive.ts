/** How the targets that fuzz a device drive it: what all of them do alike, whatever the device is. */
import { assert, assertEquals } from "@std/assert";
import {
  CORE_FEATURES,
  type Device,
  DeviceState,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from "@virtio/device";
import type { GuestMemory } from "@virtio/memory";
import type { QueueConfig } from "@virtio/vring";
import type { RawPackedDriver, RawSplitDriver } from "../../packages/vring/testing/raw_driver.ts";
import { type GuardedMemory, turns } from "./harness.ts";

/** Bytes of guest memory: address and length. */
export type Range = readonly [address: number, length: number];

/** A driver's rings, one for each queue. */
export type Rings = readonly (RawSplitDriver | RawPackedDriver)[];

/** What a case says of rings. */
export interface RingChoice {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
}

/** The feature bits of it, with those for resets of queues and suspending. */
export function ringFeatures({ packed, eventIdx, inOrder, indirect }: RingChoice): bigint {
  return (packed ? VIRTIO_F_RING_PACKED : 0n) | (eventIdx ? VIRTIO_F_EVENT_IDX : 0n) |
    (inOrder ? VIRTIO_F_IN_ORDER : 0n) | (indirect ? VIRTIO_F_INDIRECT_DESC : 0n) |
    VIRTIO_F_RING_RESET | VIRTIO_F_SUSPEND;
}

/** A device that nobody hears, but for its errors. */
export function quietState(device: Device, memory: GuestMemory, errors: Error[]): DeviceState {
  return new DeviceState(device, {
    memory,
    carries: CORE_FEATURES,
    features: CORE_FEATURES,
    interrupt: { queue: () => {}, config: () => {} },
    onError: (error) => errors.push(error),
  });
}

/** Initialises a device up to FEATURES_OK. */
export function negotiate(state: DeviceState, features: bigint): void {
  state.writeStatus(1);
  state.writeStatus(3);
  for (let word = 0; word < 4; word++) {
    state.writeDriverFeatures(word, Number((features >> BigInt(32 * word)) & 0xffff_ffffn));
  }
  state.writeStatus(11);
  assertEquals(state.status, 11, "features that were offered are agreed on");
}

/** Tells the device where a queue lies, and enables it. */
export function enableQueue(state: DeviceState, queue: number, config: QueueConfig): void {
  const setup = state.queues[queue]!;
  setup.setSize(config.size);
  const areas = [config.descriptorArea, config.driverArea, config.deviceArea] as const;
  for (const area of [0, 1, 2] as const) {
    setup.writeAddress(area, 0, areas[area]);
    setup.writeAddress(area, 1, 0);
  }
  state.enableQueue(queue);
}

/**
 * Resets a device.
 *
 * @param most Turns of the event loop that this may take.
 * @param turn Called before each.
 */
export async function resetDevice(
  state: DeviceState,
  most = 20,
  turn: (turn: number) => void = () => {},
): Promise<void> {
  state.writeStatus(0);
  for (let i = 0; i < most && state.status !== 0; i++) {
    turn(i);
    await turns(1);
  }
  assertEquals(state.status, 0, "a reset ends");
}

/** Throws if a byte was changed since `guard.remember` that is neither in one of the ranges nor the device's in a ring. */
export function checkMemory(
  guard: GuardedMemory,
  ranges: readonly Range[],
  rings: Rings,
  packed: boolean,
): void {
  const written = rings.flatMap(({ config: { size, deviceArea, descriptorArea } }): Range[] =>
    packed ? [[deviceArea, 4], [descriptorArea, 16 * size]] : [[deviceArea, 6 + 8 * size]]
  );
  guard.checkUnchanged([...ranges, ...written]);
  guard.checkGuards();
}

/** Throws if the device looks ill. @param valid Whether its driver has kept every rule since the last reset. */
export function checkHealth(
  { status }: DeviceState,
  valid: boolean,
  errors: readonly Error[],
): void {
  assert(Number.isInteger(status) && status >= 0 && status <= 0xff, `the status is ${status}`);
  if (!valid) return;
  assertEquals(errors, [], "a driver that broke no rule is accused");
  assert((status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) === 0);
}
