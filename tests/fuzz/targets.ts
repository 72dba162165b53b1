import { blkTarget } from "./blk_target.ts";
import { mmioTarget, pciTarget } from "./bus_target.ts";
import { consoleTarget } from "./console_target.ts";
import type { Target } from "./harness.ts";
import { netTarget } from "./net_target.ts";
import { tcpTarget } from "./tcp_target.ts";
import { vhostUserTarget } from "./vhost_user_target.ts";
import { virbrTarget } from "./virbr_target.ts";
import { vringTarget } from "./vring_target.ts";

/** All targets. */
export const TARGETS: readonly Target<unknown>[] = [
  vringTarget,
  blkTarget,
  netTarget,
  consoleTarget,
  pciTarget,
  mmioTarget,
  virbrTarget,
  tcpTarget,
  vhostUserTarget,
] as readonly Target<unknown>[];
