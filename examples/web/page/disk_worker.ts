/** Where the disk's sectors are read and written. */
import "@virtio/blk/opfs/worker";
