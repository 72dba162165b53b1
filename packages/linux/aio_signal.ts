import { Errno, SystemError } from "./errno.ts";
import { closeDescriptor, openDescriptor, OpenFlag } from "./descriptor.ts";
import { addressOf, check, errno, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  setup: { name: "syscall", parameters: ["i32", "u32", "buffer"], result: "i32" },
  destroy: { name: "syscall", parameters: ["i32", "u64"], result: "i32" },
  submit: { name: "syscall", parameters: ["i32", "u64", "i64", "buffer"], result: "i32" },
  events: {
    name: "syscall",
    parameters: ["i32", "u64", "i64", "i64", "buffer", "pointer"],
    result: "i32",
  },
} as const;

/** System calls, whose numbers depend on the processor. */
const Call = typeof Deno !== "undefined" && Deno.build.arch === "aarch64"
  ? { setup: 0, destroy: 1, submit: 2, events: 4 }
  : { setup: 206, destroy: 207, submit: 209, events: 208 };

/** Offsets and values of `struct iocb`. */
const Iocb = { opcode: 16, file: 20, flags: 56, resultFile: 60, size: 64 } as const;
const IOCB_CMD_PREAD = 0;
const IOCB_FLAG_RESFD = 1;
const EVENT_SIZE = 32;
/** Completions that have room, at least. */
const ROOM = 32;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

// Numbers do as well as bigints, though the types do not say so, and cost nothing.
const ONE = 1 as unknown as bigint;
const NONE = 0 as unknown as bigint;
const MANY = ROOM as unknown as bigint;

/** Signals an event file by the kernel's older interface for asynchronous work: see `EventSignal`. */
export class AioSignal {
  readonly #context: bigint;
  /** Of a file from which nothing is read. */
  readonly #file: number;
  readonly #iocb: Uint8Array<ArrayBuffer> = fixedBytes(Iocb.size);
  readonly #list: Uint8Array<ArrayBuffer> = fixedBytes(8);
  readonly #events: Uint8Array<ArrayBuffer> = fixedBytes(ROOM * EVENT_SIZE);

  /** @throws {SystemError} If the system has no such interface, or not for us, or it is no event file. */
  constructor(descriptor: number) {
    this.#file = openDescriptor("/dev/null", OpenFlag.readOnly);
    const context = fixedBytes(8);
    try {
      check(libc().setup(Call.setup, ROOM, context), "io_setup");
    } catch (error) {
      closeDescriptor(this.#file);
      throw error;
    }
    this.#context = new BigUint64Array(context.buffer)[0]!;
    const view = new DataView(this.#iocb.buffer);
    view.setUint16(Iocb.opcode, IOCB_CMD_PREAD, true);
    view.setUint32(Iocb.file, this.#file, true);
    view.setUint32(Iocb.flags, IOCB_FLAG_RESFD, true);
    view.setUint32(Iocb.resultFile, descriptor, true);
    new BigUint64Array(this.#list.buffer)[0] = addressOf(this.#iocb);
  }

  /** See `EventSignal.signal`. */
  signal(): boolean {
    const { submit, events } = libc();
    if (submit(Call.submit, this.#context, ONE, this.#list) === 1) return true;
    if (errno() !== Errno.EAGAIN) return false;
    // Completions are taken away only when there is no room for more.
    while (events(Call.events, this.#context, NONE, MANY, this.#events, null) > 0);
    return submit(Call.submit, this.#context, ONE, this.#list) === 1;
  }

  /** Ends it. */
  close(): void {
    const destroyed = libc().destroy(Call.destroy, this.#context);
    closeDescriptor(this.#file);
    if (destroyed < 0) throw new SystemError("io_destroy", errno());
  }
}
