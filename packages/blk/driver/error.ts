import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP } from "../constants.ts";

/** The device answered a request with an error. Other requests go on. */
export class BlkError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "BlkError";
  /** VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, or what the device wrote though the standard does not know it. */
  readonly status: number;
  /** Request type. */
  readonly type: number;

  /** Says what failed. */
  constructor(type: number, status: number) {
    super(`The device answered a request of type ${type} with ${nameOf(status)}`);
    this.status = status;
    this.type = type;
  }
}

function nameOf(status: number): string {
  if (status === VIRTIO_BLK_S_IOERR) return "VIRTIO_BLK_S_IOERR";
  if (status === VIRTIO_BLK_S_UNSUPP) return "VIRTIO_BLK_S_UNSUPP";
  if (status === NO_STATUS) return "no status";
  return `the unknown status ${status}`;
}

/** Stands for a status that the device did not say it wrote. No device sends it: it is what the byte held before. */
export const NO_STATUS = 0xff;
