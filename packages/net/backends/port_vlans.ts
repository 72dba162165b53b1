import { checkInteger } from "@virtio/device";
import type { Frame } from "../frame.ts";
import type { SwitchPortOptions } from "./switch_options.ts";
import { hasTag, MAX_VLAN, tagControl, VLANS } from "./vlan_tag.ts";

/** Which VLANs pass a port, and which of them without a tag. */
export class PortVlans {
  /** The VLAN of frames without a tag; -1 if they do not pass. */
  readonly native: number;
  /** Whether frames with tags pass. */
  readonly tagged: boolean;
  /** A bit for each VLAN. */
  readonly #members: Int32Array = new Int32Array(VLANS / 32);

  /**
   * @throws {RangeError} If there is no such VLAN.
   * @throws {TypeError} If the port is to be access port and trunk.
   */
  constructor({ vlan, trunk }: SwitchPortOptions) {
    if (vlan !== undefined) {
      if (trunk !== undefined) {
        throw new TypeError("A port is an access port or a trunk: give vlan or trunk, not both");
      }
      this.#add(vlan, 0);
      this.native = vlan;
      this.tagged = false;
      return;
    }
    const { vlans = "all", native = 0 } = trunk ?? {};
    if (vlans === "all") { for (let id = 1; id <= MAX_VLAN; id++) this.#add(id, 1); }
    else for (const id of vlans) this.#add(id, 1);
    if (native !== null) this.#add(native, 0);
    this.native = native ?? -1;
    this.tagged = true;
  }

  /** Whether frames of a VLAN leave by the port. */
  has(vlan: number): boolean {
    return (this.#members[vlan >>> 5]! & 1 << (vlan & 31)) !== 0;
  }

  /**
   * The VLAN of a frame that comes in by the port; -1 if it may not. A tag without a VLAN (0) gives only a priority.
   */
  classify(frame: Frame): number {
    if (!hasTag(frame)) return this.native;
    const vlan = tagControl(frame) & 0xfff;
    if (vlan === 0) return this.native;
    return this.tagged && vlan <= MAX_VLAN && this.has(vlan) ? vlan : -1;
  }

  #add(vlan: number, least: number): void {
    checkInteger("A VLAN", vlan, least, MAX_VLAN);
    this.#members[vlan >>> 5]! |= 1 << (vlan & 31);
  }
}
