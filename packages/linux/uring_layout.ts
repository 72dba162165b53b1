/** Numbers and places of io_uring's structures, the same on x64 and arm64. */

/** Operations of a submission. */
export const UringOp = {
  nop: 0,
  readv: 1,
  writev: 2,
  fsync: 3,
  readFixed: 4,
  writeFixed: 5,
  asyncCancel: 14,
  fallocate: 17,
  read: 22,
  write: 23,
} as const;

/** Flags of a submission, to be joined. */
export const UringFlag = {
  /** The descriptor is an index of `registerFiles`. */
  fixedFile: 1,
} as const;

/** System calls. */
export const SYS_IO_URING_SETUP = 425;
export const SYS_IO_URING_ENTER = 426;
export const SYS_IO_URING_REGISTER = 427;

/** Flags of the ring. */
export const IORING_SETUP_CQSIZE = 1 << 3;
export const IORING_SETUP_CLAMP = 1 << 4;
export const IORING_SETUP_SUBMIT_ALL = 1 << 7;
export const IORING_SETUP_COOP_TASKRUN = 1 << 8;
export const IORING_SETUP_TASKRUN_FLAG = 1 << 9;
export const IORING_SETUP_SINGLE_ISSUER = 1 << 12;

export const IORING_FEAT_SINGLE_MMAP = 1;
export const IORING_FEAT_NODROP = 2;
export const IORING_FEAT_SUBMIT_STABLE = 4;

export const IORING_ENTER_GETEVENTS = 1;

/** Bits of the submission ring's flags: completions that only a call brings out. */
export const IORING_SQ_CQ_OVERFLOW = 2;
export const IORING_SQ_TASKRUN = 4;

export const IORING_REGISTER_BUFFERS = 0;
export const IORING_REGISTER_FILES = 2;
export const IORING_REGISTER_EVENTFD = 4;

export const IORING_OFF_SQ_RING = 0;
export const IORING_OFF_SQES = 0x1000_0000;

/** `struct io_uring_params`. */
export const PARAMS_SIZE = 120;
export const ParamsOffset = {
  sq_entries: 0,
  cq_entries: 4,
  flags: 8,
  features: 20,
  sq_head: 40,
  sq_tail: 44,
  sq_ring_mask: 48,
  sq_flags: 56,
  sq_array: 64,
  cq_head: 80,
  cq_tail: 84,
  cq_ring_mask: 88,
  cq_cqes: 100,
} as const;

/** Bytes of `struct io_uring_sqe` and `struct io_uring_cqe`. */
export const SQE_SIZE = 64;
export const CQE_SIZE = 16;
