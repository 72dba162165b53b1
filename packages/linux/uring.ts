/**
 * io_uring by raw system calls: operations on files that the system does while the thread goes on, any number of them begun by
 * one call. The rings are mapped, so that completions are seen without a call.
 *
 * Hot path: nothing is allocated for an operation; positions and addresses are numbers, written as two words.
 */
import { closeDescriptor } from "./descriptor.ts";
import { Errno, SystemError } from "./errno.ts";
import { check, errno, fixedBytes, loadLibc } from "./libc.ts";
import { ForeignMapping } from "./foreign_mapping.ts";
import * as layout from "./uring_layout.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const { SYS_IO_URING_ENTER, IORING_ENTER_GETEVENTS, IORING_SQ_CQ_OVERFLOW, IORING_SQ_TASKRUN } =
  layout;

const SYMBOLS = {
  // `syscall` takes whatever the call wants; the three calls here want integers and one address.
  setup: { name: "syscall", parameters: ["i32", "u32", "buffer"], result: "i32" },
  enter: {
    name: "syscall",
    parameters: ["i32", "i32", "u32", "u32", "u32", "pointer", "u32"],
    result: "i32",
  },
  register: {
    name: "syscall",
    parameters: ["i32", "i32", "u32", "buffer", "u32"],
    result: "i32",
  },
} as const;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** Older systems know fewer of these; each is only to be faster. */
const SETUP_FLAGS = [
  layout.IORING_SETUP_SUBMIT_ALL | layout.IORING_SETUP_COOP_TASKRUN |
  layout.IORING_SETUP_TASKRUN_FLAG | layout.IORING_SETUP_SINGLE_ISSUER,
  layout.IORING_SETUP_SUBMIT_ALL | layout.IORING_SETUP_COOP_TASKRUN |
  layout.IORING_SETUP_TASKRUN_FLAG,
  0,
];

const NEEDED = layout.IORING_FEAT_SINGLE_MMAP | layout.IORING_FEAT_NODROP |
  layout.IORING_FEAT_SUBMIT_STABLE;

/** A submission ring and its completions. It belongs to the thread that made it. */
export class Uring {
  /** The ring's descriptor; readable when there are completions. */
  readonly descriptor: number;
  /** Operations that can be prepared before they are submitted. */
  readonly entries: number;
  /** What `next` found: the operation's token. */
  token = 0;
  /** What `next` found: the call's result, or the negative of an `Errno`. */
  result = 0;
  readonly #enter: ReturnType<typeof libc>["enter"];
  readonly #rings: ForeignMapping;
  readonly #entries: ForeignMapping;
  #words: Int32Array;
  #sqes: Int32Array;
  readonly #sqTail: number;
  readonly #sqMask: number;
  readonly #sqFlags: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqMask: number;
  readonly #cqes: number;
  #tail = 0;
  /** Prepared and not yet taken by the system. */
  #prepared = 0;
  #head = 0;
  /** Completions before this one are the system's to overwrite. */
  #freed = 0;
  /** The completion ring's tail as it was seen last. */
  #seen = 0;
  #closed = false;

  /**
   * Makes a ring.
   *
   * @param entries A power of two, at most 4096. Twice as many completions have room.
   * @throws {SystemError} If the system has no io_uring, or not for us (`ENOSYS`, `EPERM`).
   * @throws {RangeError} If the number cannot be.
   */
  constructor(entries: number) {
    if (!(Number.isInteger(entries) && entries >= 1 && entries <= 4096)) {
      throw new RangeError(`entries must be an integer from 1 to 4096: it is ${entries}`);
    }
    this.#enter = libc().enter;
    const params = setUp(entries);
    this.descriptor = params.descriptor;
    const at = layout.ParamsOffset;
    const field = (offset: number): number => params.view.getUint32(offset, true);
    try {
      if ((field(at.features) & NEEDED) !== NEEDED) {
        throw new SystemError("io_uring_setup", Errno.ENOSYS, "an io_uring as of Linux 5.5");
      }
      this.entries = field(at.sq_entries);
      const size = Math.max(
        field(at.sq_array) + 4 * this.entries,
        field(at.cq_cqes) + layout.CQE_SIZE * field(at.cq_entries),
      );
      this.#rings = new ForeignMapping(this.descriptor, layout.IORING_OFF_SQ_RING, size);
      this.#entries = new ForeignMapping(
        this.descriptor,
        layout.IORING_OFF_SQES,
        layout.SQE_SIZE * this.entries,
      );
    } catch (error) {
      closeDescriptor(this.descriptor);
      throw error;
    }
    const words = new Int32Array(this.#rings.buffer);
    this.#words = words;
    this.#sqes = new Int32Array(this.#entries.buffer);
    this.#sqTail = field(at.sq_tail) >> 2;
    this.#sqMask = words[field(at.sq_ring_mask) >> 2]!;
    this.#sqFlags = field(at.sq_flags) >> 2;
    this.#cqHead = field(at.cq_head) >> 2;
    this.#cqTail = field(at.cq_tail) >> 2;
    this.#cqMask = words[field(at.cq_ring_mask) >> 2]!;
    this.#cqes = field(at.cq_cqes) >> 2;
    // Entries are used in turn, so the ring of their numbers never changes.
    const array = field(at.sq_array) >> 2;
    for (let i = 0; i < this.entries; i++) words[array + i] = i;
  }

  /** How many more operations can be prepared before `submit`. */
  get room(): number {
    return this.entries - this.#prepared;
  }

  /** How many are prepared. */
  get prepared(): number {
    return this.#prepared;
  }

  /**
   * Prepares an operation. Not begun before `submit`; memory that it names must stay until its completion was seen, an array
   * of iovecs until `submit` has returned.
   *
   * @param op Of `UringOp`.
   * @param flags Of `UringFlag`.
   * @param descriptor Of the file, or its index.
   * @param position Where in the file.
   * @param addressLow Lower half of the address.
   * @param addressHigh Upper half.
   * @param length Bytes, or iovecs.
   * @param how Flags of the operation itself: RWF, fsync.
   * @param token A number from 0 to 2^31 - 1 by which the completion is known.
   * @throws {RangeError} If there is no room.
   */
  prepare(
    op: number,
    flags: number,
    descriptor: number,
    position: number,
    addressLow: number,
    addressHigh: number,
    length: number,
    how: number,
    token: number,
  ): void {
    if (this.#prepared === this.entries) throw new RangeError("The ring is full: submit first");
    const at = (this.#tail & this.#sqMask) << 4;
    const sqes = this.#sqes;
    sqes[at] = op | (flags << 8);
    sqes[at + 1] = descriptor;
    sqes[at + 2] = position | 0;
    sqes[at + 3] = Math.floor(position / 0x1_0000_0000);
    sqes[at + 4] = addressLow | 0;
    sqes[at + 5] = addressHigh | 0;
    sqes[at + 6] = length | 0;
    sqes[at + 7] = how;
    sqes[at + 8] = token;
    sqes[at + 9] = 0;
    sqes[at + 10] = 0;
    sqes[at + 11] = 0;
    sqes[at + 12] = 0;
    sqes[at + 13] = 0;
    sqes[at + 14] = 0;
    sqes[at + 15] = 0;
    this.#tail = (this.#tail + 1) | 0;
    this.#prepared++;
  }

  /**
   * Has the system begin with all that is prepared. What can be done at once is done when this returns.
   *
   * @param wait Waits for so many completions, those that are there already counted; fewer may be there after all.
   * @returns Whether all was taken; if not, take completions (`next`) and call again.
   * @throws {SystemError} If the system refuses for another reason than lack of room.
   */
  submit(wait = 0): boolean {
    const words = this.#words;
    Atomics.store(words, this.#sqTail, this.#tail);
    const flags = wait > 0 ? IORING_ENTER_GETEVENTS : 0;
    for (;;) {
      const taken = this.#enter(
        SYS_IO_URING_ENTER,
        this.descriptor,
        this.#prepared,
        wait,
        flags,
        null,
        0,
      );
      if (taken >= 0) {
        this.#prepared -= taken;
        return this.#prepared === 0;
      }
      const code = errno();
      if (code === Errno.EINTR) continue;
      if (code === Errno.EAGAIN || code === Errno.EBUSY) return false;
      throw new SystemError("io_uring_enter", code);
    }
  }

  /**
   * Passes the next completion, and shows it as `token` and `result`.
   *
   * @returns Whether there was one.
   */
  next(): boolean {
    const head = this.#head;
    if (head === this.#seen && !this.#look()) return false;
    const words = this.#words;
    const at = this.#cqes + ((head & this.#cqMask) << 2);
    this.token = words[at]!;
    this.result = words[at + 2]!;
    this.#head = (head + 1) | 0;
    return true;
  }

  /** Completions that can be taken without a call. */
  get ready(): number {
    this.#seen = Atomics.load(this.#words, this.#cqTail);
    return (this.#seen - this.#head) | 0;
  }

  #look(): boolean {
    const words = this.#words;
    this.#seen = Atomics.load(words, this.#cqTail);
    if (this.#seen !== this.#head) return true;
    // Given back together, now that all that was there has been passed.
    if (this.#freed !== this.#head) {
      this.#freed = this.#head;
      Atomics.store(words, this.#cqHead, this.#head);
    }
    if ((Atomics.load(words, this.#sqFlags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) === 0) {
      return false;
    }
    // The system has completions that it writes out only when it is called.
    this.#enter(SYS_IO_URING_ENTER, this.descriptor, 0, 0, IORING_ENTER_GETEVENTS, null, 0);
    this.#seen = Atomics.load(words, this.#cqTail);
    return this.#seen !== this.#head;
  }

  /**
   * Makes files known to the ring: operations name them by index, which costs less. Once.
   *
   * @throws {SystemError} If the system refuses.
   */
  registerFiles(descriptors: readonly number[]): void {
    this.#register(layout.IORING_REGISTER_FILES, descriptors);
  }

  /**
   * Has the system add one to an event file with every completion. Once.
   *
   * @throws {SystemError} If the system refuses, or it is no event file (`EINVAL`).
   */
  registerEvent(descriptor: number): void {
    this.#register(layout.IORING_REGISTER_EVENTFD, [descriptor]);
  }

  #register(what: number, descriptors: readonly number[]): void {
    const bytes = fixedBytes(4 * descriptors.length);
    new Int32Array(bytes.buffer).set(descriptors);
    const { register } = libc();
    check(
      register(layout.SYS_IO_URING_REGISTER, this.descriptor, what, bytes, descriptors.length),
      "io_uring_register",
    );
  }

  /** Closes the ring. Nothing must be in flight: the system may go on with it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // Late calls find nothing, rather than memory that is not there.
    this.#words = this.#sqes = new Int32Array(0);
    this.#rings.unmap();
    this.#entries.unmap();
    closeDescriptor(this.descriptor);
  }
}

function setUp(entries: number): { descriptor: number; view: DataView } {
  for (const flags of SETUP_FLAGS) {
    const params = fixedBytes(layout.PARAMS_SIZE);
    const view = new DataView(params.buffer);
    view.setUint32(
      layout.ParamsOffset.flags,
      flags | layout.IORING_SETUP_CQSIZE | layout.IORING_SETUP_CLAMP,
      true,
    );
    view.setUint32(layout.ParamsOffset.cq_entries, 2 * entries, true);
    const descriptor = libc().setup(layout.SYS_IO_URING_SETUP, entries, params);
    if (descriptor >= 0) return { descriptor, view };
    const code = errno();
    if (code !== Errno.EINVAL || flags === 0) throw new SystemError("io_uring_setup", code);
  }
  throw new SystemError("io_uring_setup", Errno.EINVAL);
}
