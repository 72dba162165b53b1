/** serve:blk: a disk for a virtual machine of another program, by vhost-user. `--help` says what it can do. */
import { ImageError } from "@virtio/blk/linux";
import { NbdError } from "@virtio/blk/nbd";
import { openDisk } from "./serve/disk.ts";
import { BLK_HELP, readBlkOptions } from "./serve/options.ts";
import { runServer } from "./serve/server.ts";

const status = await runServer({
  name: "serve:blk",
  help: BLK_HELP,
  readOptions: readBlkOptions,
  open: openDisk,
  errors: [ImageError, NbdError],
});
Deno.exit(status);
