import { BLK_DEVICE } from "./blk_device.ts";
import { BLK_DRIVER } from "./blk_driver.ts";
import { CONSOLE } from "./console.ts";
import { DEVICE } from "./device.ts";
import { DEVICE_STATE } from "./device_state.ts";
import { DRIVER_QUEUES } from "./driver_queues.ts";
import { DRIVER_SESSION } from "./driver_session.ts";
import { MEMORY } from "./memory.ts";
import { MMIO } from "./mmio.ts";
import type { MutatedFile, PlacedMutant } from "./mutant.ts";
import { NET_BACKENDS } from "./net_backends.ts";
import { NET_CONTROL } from "./net_control.ts";
import { NET_DEVICE } from "./net_device.ts";
import { NET_DRIVER } from "./net_driver.ts";
import { NET_OFFLOAD } from "./net_offload.ts";
import { NET_RECEIVE } from "./net_receive.ts";
import { PACKED_PARTS } from "./packed_parts.ts";
import { PACKED_QUEUE } from "./packed_queue.ts";
import { PCI } from "./pci.ts";
import { SPLIT_QUEUE } from "./split_queue.ts";
import { VHOST_USER_BACKEND } from "./vhost_user_backend.ts";
import { VIRBR } from "./virbr.ts";
import { VIRBR_FLOWS } from "./virbr_flows.ts";
import { VIRBR_TCP } from "./virbr_tcp.ts";
import { VRING } from "./vring.ts";
import { WORKER_DEVICE } from "./worker_device.ts";

const FILES: readonly (readonly MutatedFile[])[] = [
  MEMORY,
  VRING,
  SPLIT_QUEUE,
  PACKED_QUEUE,
  PACKED_PARTS,
  DRIVER_QUEUES,
  DEVICE_STATE,
  DEVICE,
  DRIVER_SESSION,
  PCI,
  MMIO,
  BLK_DEVICE,
  BLK_DRIVER,
  CONSOLE,
  NET_OFFLOAD,
  NET_BACKENDS,
  NET_CONTROL,
  NET_DEVICE,
  NET_RECEIVE,
  NET_DRIVER,
  VIRBR,
  VIRBR_TCP,
  VIRBR_FLOWS,
  WORKER_DEVICE,
  VHOST_USER_BACKEND,
];

/** All mutants, in the order in which they are tried. */
export const MUTANTS: readonly PlacedMutant[] = FILES.flat().flatMap(({ file, mutants }) =>
  mutants.map((mutant) => ({ ...mutant, file }))
);
