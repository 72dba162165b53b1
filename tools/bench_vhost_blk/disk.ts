/** The disk of our server. */
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";

/** What it is, for a worker too. */
export interface DiskData {
  readonly image: string;
  readonly queues: number;
  readonly direct: boolean;
}

/** Opens the image, which other servers have open too. */
export function makeDisk({ image, queues, direct }: DiskData): BlkDevice {
  const backend = LinuxBackend.open(image, { direct, lock: false });
  return new BlkDevice({ backend, queues });
}
