/** The device's side of a packed queue's event suppression structures (virtio 1.4, 2.8.10). */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import {
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
} from "./layout.ts";
import { needEvent } from "./need_event.ts";
import type { ResolvedAreas } from "./open_queue.ts";

/** Which notifications the driver wants, and which kicks it is told to send. */
export class PackedEvents {
  readonly #memory: GuestMemory;
  readonly #driverRegion: MemoryRegion;
  readonly #deviceRegion: MemoryRegion;
  /** Indexes of the two structures into their regions' i32. */
  readonly #driverEvent: number = 0;
  readonly #deviceEvent: number = 0;
  readonly #size: number = 0;
  /** Whether VIRTIO_F_EVENT_IDX is in use. */
  readonly eventIdx: boolean = false;
  #suspended = false;

  /** @param eventIdx Whether VIRTIO_F_EVENT_IDX was negotiated. */
  constructor(memory: GuestMemory, size: number, areas: ResolvedAreas, eventIdx: boolean) {
    this.#memory = memory;
    this.#driverRegion = areas.driver.region;
    this.#deviceRegion = areas.device.region;
    this.#driverEvent = areas.driver.offset / 4;
    this.#deviceEvent = areas.device.offset / 4;
    this.#size = size;
    this.eventIdx = eventIdx;
  }

  /**
   * Whether the driver wants to be told of the `slots` that were used last. Call it after they were published.
   *
   * @param next The next slot to use.
   * @param wrap The wrap counter there.
   */
  wanted(next: number, wrap: number, slots: number): boolean {
    const word = Atomics.load(this.#driverRegion.i32, this.#driverEvent);
    const flags = (word >>> 16) & 3;
    if (flags === RING_EVENT_FLAGS_DISABLE) return false;
    if (flags !== RING_EVENT_FLAGS_DESC || !this.eventIdx) return true;
    let event = word & 0x7fff;
    if (((word >>> 15) & 1) !== wrap) event -= this.#size;
    return needEvent(event, next, slots);
  }

  /** Asks for a kick when the slot `next` is made available. What became available meanwhile has to be looked for after it. */
  ask(next: number, wrap: number): void {
    if (this.eventIdx) {
      this.#tell(next | (wrap << 15) | (RING_EVENT_FLAGS_DESC << 16));
    } else if (this.#suspended) {
      this.#suspended = false;
      this.#tell(RING_EVENT_FLAGS_ENABLE << 16);
    }
  }

  #tell(word: number): void {
    Atomics.store(this.#deviceRegion.i32, this.#deviceEvent, word);
    this.#memory.tracker?.mark(this.#deviceRegion.base + this.#deviceEvent * 4, 4);
  }

  /** Says that no kick is needed. */
  suspend(): void {
    // With EVENT_IDX the descriptor that was asked for is behind already.
    if (this.eventIdx || this.#suspended) return;
    this.#suspended = true;
    const at = this.#deviceEvent * 4;
    this.#deviceRegion.view.setUint32(at, RING_EVENT_FLAGS_DISABLE << 16, true);
    this.#memory.tracker?.mark(this.#deviceRegion.base + at, 4);
  }
}
