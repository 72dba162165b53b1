/** Feature negotiation (virtio 1.4, 2.2): what is offered, what the driver wrote, what was agreed on. */
import type { Device } from "./device.ts";
import {
  CORE_FEATURES,
  DEFAULT_FEATURES,
  DEVICE_TYPE_FEATURES,
  type FeatureSet,
  unmetRequirement,
  VIRTIO_F_VERSION_1,
} from "./features.ts";

/** Words of 32 feature bits that registers show (2.2). */
const WORDS = 4;

/** What negotiation has to know of a device. */
export type Negotiable = Pick<Device, "features" | "requires" | "accepts">;

/** The feature bits of one device. */
export class Negotiation {
  /** All feature bits that are offered: the device's, and those of the ring and the transport. */
  readonly offered: FeatureSet;
  /** What the driver wrote, checked by nobody. */
  accepted: FeatureSet = 0n;
  /** What was agreed on; none before FEATURES_OK. */
  agreed: FeatureSet = 0n;
  readonly #device: Negotiable;

  /**
   * @param wanted Feature bits 24 to 43 to offer.
   * @param carries Which of them the transport can carry.
   * @throws {TypeError} If the device offers bits that are not its own, or a bit is wanted that the core cannot do.
   */
  constructor(device: Negotiable, wanted: FeatureSet | undefined, carries: FeatureSet) {
    if ((device.features & ~DEVICE_TYPE_FEATURES) !== 0n) {
      throw new TypeError(
        "A device offers only feature bits of its type (0 to 23, 41, 42, 50 to 127); give the others as `features`",
      );
    }
    const core = wanted ?? DEFAULT_FEATURES;
    if ((core & ~CORE_FEATURES) !== 0n) {
      throw new TypeError(
        `Cannot offer feature bits 0x${(core & ~CORE_FEATURES).toString(16)}: not built`,
      );
    }
    this.#device = device;
    this.offered = device.features | (core & carries) | VIRTIO_F_VERSION_1;
    const unmet = unmetRequirement(this.offered, device.requires ?? []);
    if (unmet !== null) {
      throw new TypeError(
        `Cannot offer feature 0x${unmet.toString(16)} without what it requires (virtio 1.4, 2.2.2)`,
      );
    }
  }

  /** Whether all of `bits` were agreed on. */
  has(bits: FeatureSet): boolean {
    return (this.agreed & bits) === bits;
  }

  /** The driver writes 32 feature bits. */
  write(word: number, value: number): void {
    if (!(word >= 0 && word < WORDS)) return;
    const shift = BigInt(32 * word);
    this.accepted = (this.accepted & ~(0xffff_ffffn << shift)) | (BigInt(value >>> 0) << shift);
  }

  /**
   * The driver sets FEATURES_OK.
   *
   * @returns Whether the device can work with what it wrote.
   * @throws Whatever the device throws when it is asked.
   */
  finish(): boolean {
    const { accepted } = this;
    if ((accepted & ~this.offered) !== 0n || (accepted & VIRTIO_F_VERSION_1) === 0n) return false;
    if (unmetRequirement(accepted, this.#device.requires ?? []) !== null) return false;
    if (!(this.#device.accepts?.(accepted) ?? true)) return false;
    this.agreed = accepted;
    return true;
  }

  /** Nothing is agreed on any more. */
  reset(): void {
    this.accepted = 0n;
    this.agreed = 0n;
  }
}

/** 32 feature bits, as a register shows them. */
export function featureWord(features: FeatureSet, word: number): number {
  if (!(word >= 0 && word < WORDS)) return 0;
  return Number((features >> BigInt(32 * word)) & 0xffff_ffffn);
}
