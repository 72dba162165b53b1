/**
 * Calls of Linux that the runtime does not have, through the C library: event and memory files, sockets that pass
 * descriptors, waiting for several of them, memory that other processes see. No native add-on, but the permission for
 * foreign functions (`--allow-ffi`).
 *
 * Needs Deno on Linux with the GNU C library, on a 64-bit little endian processor.
 *
 * ```ts
 * import { EventFd, PollEvent, PollSet } from "@virtio/linux";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const kick = EventFd.create();
 * const waited = new PollSet();
 * waited.add(kick.descriptor);
 * assertEquals(waited.wait(0), 0);
 * kick.signal(); // by whoever has the descriptor, in another thread or process too
 * assertEquals(await waited.waitLater(1000), 1);
 * assertEquals(waited.ready(0), PollEvent.readable);
 * assert(kick.take());
 * kick.close();
 * ```
 *
 * @module
 */
export { Errno, SystemError } from "./errno.ts";
export { addressOf, check, errno, fixedBytes, loadLibc } from "./libc.ts";
export {
  closeDescriptor,
  descriptorKind,
  descriptorTarget,
  duplicateDescriptor,
  isDescriptor,
  openDescriptor,
  OpenFlag,
  setNonblocking,
} from "./descriptor.ts";
export {
  type DatagramError,
  type DatagramKind,
  DatagramSocket,
  type InetAddress,
} from "./datagram_socket.ts";
export { EventFd } from "./event_fd.ts";
export { EventSignal, type SignalWay } from "./event_signal.ts";
export { lockFile } from "./lock_file.ts";
export { LoopReader } from "./loop_reader.ts";
export { MemoryFile, Seal } from "./memory_file.ts";
export { mapOver, SharedMapping } from "./shared_mapping.ts";
export { UnixListener } from "./unix_listener.ts";
export { type ReceiveResult, UnixSocket } from "./unix_socket.ts";
export { PollEvent, PollSet } from "./poll_set.ts";
export { pinThread, threadProcessors } from "./affinity.ts";
export { threadExists, threadId } from "./thread.ts";
export {
  AllocateMode,
  allocateRange,
  allocateRangeLater,
  discardBlocks,
  type FileFacts,
  fileFacts,
  fileSize,
  IOV_MAX,
  IoVectors,
  MOST_BYTES,
  readVectors,
  resizeFile,
  syncData,
  transferError,
  TransferFlag,
  writeVectors,
} from "./file_io.ts";
export { Uring } from "./uring.ts";
export { UringFlag, UringOp } from "./uring_layout.ts";
