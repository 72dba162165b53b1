import type { QueueHook } from "@virtio/device";
import type { GuestMemory } from "@virtio/memory";
import type { QueueLook } from "@virtio/vring";
import { packedFields, packedSlots } from "./packed.ts";
import type { ChainView, DeviceView, InspectCommand, QueueView, Snapshot } from "./snapshot.ts";
import { splitFields, splitSlots } from "./split.ts";

/** What can be looked at: any `QueueDevice`. */
export interface Inspectable {
  /** Device type (5). */
  readonly type: number;
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** Its queues. */
  readonly queueHooks: readonly QueueHook[];
}

/** A device to look at. */
export interface InspectedDevice {
  /** What to call it. */
  readonly name: string;
  /** The device. */
  readonly device: Inspectable;
  /** The memory that its driver gave it. */
  readonly memory: GuestMemory;
  /** Names of the queues, by index; "queue 0" and so on unless given. */
  readonly queueNames?: readonly string[];
}

/**
 * Looks at devices from outside: their rings in guest memory, and what they have in hand. It reads when it is asked and does
 * nothing in between, so devices that nobody looks at pay nothing.
 *
 * @example
 * ```ts
 * import { DeviceState, QueueDevice } from "@virtio/device";
 * import { Inspector } from "@virtio/inspect";
 * import { GuestMemory } from "@virtio/memory";
 * import { assertEquals } from "@std/assert";
 *
 * class Silent extends QueueDevice {
 *   protected override handle(): void {}
 * }
 * const device = new Silent({ type: 4, queueSizes: [64] });
 * const memory = GuestMemory.allocate(0x10000);
 * const inspector = new Inspector([{ name: "entropy", device, memory }]);
 * const [view] = inspector.snapshot().devices;
 * assertEquals(view!.queues[0]!.started, false);
 * ```
 */
export class Inspector {
  readonly #devices: readonly InspectedDevice[];
  /** When a chain was first seen, by device, queue and sequence number. */
  readonly #seen: Map<string, Map<number, number>> = new Map();

  /** @param devices What to look at. */
  constructor(devices: readonly InspectedDevice[]) {
    this.#devices = devices;
  }

  /** What there is to see now. */
  snapshot(): Snapshot {
    const time = performance.now();
    return {
      time,
      devices: this.#devices.map((inspected, number) => this.#device(inspected, number, time)),
    };
  }

  /**
   * Does what somebody who looks on asks for. What names no queue of these devices is ignored: it may come from a page.
   *
   * @returns Whether it was done.
   */
  command(command: InspectCommand): boolean {
    const hook = this.#devices[command?.device]?.device.queueHooks[command.queue];
    if (hook === undefined) return false;
    switch (command.do) {
      case "hold":
        if (!hook.held) hook.held = true;
        return true;
      case "release":
        if (hook.held) hook.held = false;
        return true;
      case "step":
        if (!hook.held) hook.held = true;
        hook.step();
        return true;
      default:
        return false;
    }
  }

  /** Lets all queues go: whoever looked on has gone. */
  releaseAll(): void {
    for (const { device } of this.#devices) {
      for (const hook of device.queueHooks) if (hook.held) hook.held = false;
    }
  }

  #device(inspected: InspectedDevice, number: number, time: number): DeviceView {
    const { name, device, memory, queueNames } = inspected;
    memory.refresh();
    return {
      name,
      type: device.type,
      queues: device.queueHooks.map((hook, index) => {
        const known = queueNames?.[index] ?? `queue ${index}`;
        return this.#queue(hook, index, known, memory, `${number}.${index}`, time);
      }),
    };
  }

  #queue(
    hook: QueueHook,
    index: number,
    name: string,
    memory: GuestMemory,
    key: string,
    time: number,
  ): QueueView {
    const { kicks, interrupts, chains, descriptors } = hook.counters;
    const counters = { kicks, interrupts, chains, descriptors };
    const look = hook.queue?.look() ?? null;
    const base = { index, name, held: hook.held, counters };
    if (look === null) {
      this.#seen.delete(key);
      return {
        ...base,
        started: false,
        format: "split",
        size: 0,
        fields: [],
        slots: [],
        chains: [],
      };
    }
    const split = look.format === "split";
    return {
      ...base,
      started: true,
      format: look.format,
      size: look.config.size,
      fields: split ? splitFields(memory, look) : packedFields(memory, look),
      slots: split ? splitSlots(memory, look) : packedSlots(memory, look),
      chains: this.#chains(look, key, time),
    };
  }

  #chains({ chains }: QueueLook, key: string, time: number): ChainView[] {
    const before = this.#seen.get(key);
    const now = new Map<number, number>();
    const views = chains.map((chain) => {
      const since = before?.get(chain.sequence) ?? time;
      now.set(chain.sequence, since);
      return { ...chain, age: time - since };
    });
    this.#seen.set(key, now);
    return views;
  }
}
