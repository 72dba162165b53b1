import { AioSignal } from "./aio_signal.ts";
import { descriptorKind, setNonblocking } from "./descriptor.ts";
import { Errno } from "./errno.ts";
import { EventFd } from "./event_fd.ts";
import { addressOf, errno, fixedBytes, loadLibc } from "./libc.ts";
import { Uring } from "./uring.ts";
import { UringOp } from "./uring_layout.ts";

const SYMBOLS = {
  pwritev2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" },
} as const;

const RWF_NOWAIT = 8;
/** Files that have no positions want this one. */
const NOWHERE = -1n;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** How an event file is signalled: what `EventSignal` tries, in this order. */
export type SignalWay = "uring" | "aio" | "write";

const one = fixedBytes(8);
one[0] = 1;
let place: Uint8Array<ArrayBuffer> | null = null;

/** An array of one iovec: `one`. */
function makePlace(): Uint8Array<ArrayBuffer> {
  const bytes = fixedBytes(16);
  new BigUint64Array(bytes.buffer).set([addressOf(one), 8n]);
  return bytes;
}

/**
 * Signals an event file, or a pipe or socket in its place, of a process that is not trusted, and never waits for it.
 *
 * A write to an event file whose counter is full waits, unless the file was opened so that it does not, and every process that
 * has the file can change that at any moment: whoever writes can be stopped for ever. No flag of a write prevents it (RWF_NOWAIT
 * is refused for event files), and a look before the write may be out of date. But the system itself signals event files without
 * waiting, where an operation completes: so this has it complete one that does nothing, which costs little more than a write.
 *
 * It belongs to the thread that made it.
 */
export class EventSignal {
  /** The descriptor, or -1. */
  readonly descriptor: number;
  /** How it is done. */
  readonly way: SignalWay;
  readonly #uring: Uring | null = null;
  readonly #aio: AioSignal | null = null;

  /**
   * @param descriptor Stays the caller's, and open until `close`; -1 for none.
   * @param ways What may be tried: all, unless given. Event files that are written to can stop this process, as said above; pipes
   * only where the system refuses RWF_NOWAIT for them.
   */
  constructor(descriptor: number, ways: readonly SignalWay[] = ["uring", "aio", "write"]) {
    this.descriptor = descriptor;
    this.way = "write";
    if (descriptor < 0 || descriptorKind(descriptor) !== "event") return;
    for (const way of ways) {
      try {
        if (way === "uring") {
          this.#uring = new Uring(1);
          this.way = way;
          this.#uring.registerEvent(descriptor);
          return;
        }
        if (way === "aio") {
          this.#aio = new AioSignal(descriptor);
          this.way = way;
          return;
        }
      } catch {
        // Not there, or not for us.
        this.#uring?.close();
        this.#uring = null;
      }
    }
    this.way = "write";
  }

  /** Adds one. @returns Whether it may have been taken; not if there is no room in a pipe or socket, or nobody reads it. */
  signal(): boolean {
    const uring = this.#uring;
    if (uring !== null) {
      uring.prepare(UringOp.nop, 0, -1, 0, 0, 0, 0, 0, 0);
      const taken = uring.submit();
      while (uring.next());
      return taken;
    }
    return this.#aio !== null ? this.#aio.signal() : this.#write();
  }

  #write(): boolean {
    if (this.descriptor < 0) return false;
    const { pwritev2 } = libc();
    if (pwritev2(this.descriptor, place ??= makePlace(), 1, NOWHERE, RWF_NOWAIT) === 8) return true;
    if (errno() !== Errno.EOPNOTSUPP) return false;
    try {
      setNonblocking(this.descriptor);
    } catch {
      return false;
    }
    return new EventFd(this.descriptor).signal();
  }

  /** Ends it; the descriptor stays open. */
  close(): void {
    this.#uring?.close();
    this.#aio?.close();
  }
}
