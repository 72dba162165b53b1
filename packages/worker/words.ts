/** Most queues of a device. A network device may have 2049. */
export const MAX_QUEUES = 4096;
/** Words of a line of a processor's cache. */
const LINE = 16;

/**
 * The words of shared memory between a device's worker and the transport's side. All are 32-bit and touched by `Atomics`,
 * but for what only one thread writes, and publishes by one of the others.
 *
 * Each side has one word that the other adds to when there is something to look at, and sleeps on it; what it is, the other
 * words tell. A side that is awake need not be notified: a notification costs a system call. What different threads write lies
 * in different lines of their caches, and what is written together in the same.
 */
export const Word = {
  /** The worker's: a kick, or a call. */
  wake: 0,
  /** 1 while the worker sleeps on `wake`, or is about to. */
  workerAsleep: 1,
  /** How often the worker had to be woken. */
  notifications: 2,
  /** Here the counters of kicks begin, one a queue: those of the first queues in the line of `wake`. */
  kicks: 3,
  /** State of the call that is under way, one of `CallState`. */
  call: LINE * (1 + MAX_QUEUES / LINE),
  /** Bytes of the part of a call that lies in the area. */
  length: LINE * (1 + MAX_QUEUES / LINE) + 1,
  /** Counts what the worker has to say beside interrupts; a call then asks for it. */
  news: LINE * (2 + MAX_QUEUES / LINE),
  /** Who may touch guest memory, one of `LeaseState`. */
  lease: LINE * (3 + MAX_QUEUES / LINE),
} as const;

/** Words of the bell, which the transport's side sleeps on: all workers of a device ring the same. */
export const BellWord = {
  /** Counts interrupts and news. */
  event: 0,
  /** 1 while the transport's side sleeps on `event`. */
  asleep: 1,
  /** How often it had to be woken: what notifications cost is seen here. */
  notifications: 2,
  /** Counts what workers have to say beside interrupts; which of them, their own words tell. */
  news: 3,
  /** Counts how often guest memory was written without an interrupt behind it. */
  written: 4,
  /** Here the counters of interrupts begin, one a queue. */
  interrupts: 5,
} as const;

/**
 * Whether a worker may touch guest memory. A thread that is ended runs on for a while on some platforms (in Deno, for up to two
 * seconds), so that its end alone says nothing.
 */
export const LeaseState = {
  /** It sleeps with nothing in flight: it can be taken from it. */
  free: 0,
  /** It may. */
  held: 1,
  /** It is asked to stop. */
  wanted: 2,
  /** It will not, ever again. */
  gone: 3,
} as const;

/** How a call goes back and forth. A request or an answer that is longer than the area comes in parts. */
export const CallState = {
  /** Nothing under way. */
  idle: 0,
  /** A part of a request, and more will come. */
  requestPart: 1,
  /** The last part of a request. */
  request: 2,
  /** The part was taken: the next may come. */
  taken: 3,
  /** A part of an answer, and more will come. */
  answerPart: 4,
  /** The last part of an answer. */
  answer: 5,
  /** The last part of an error's description. */
  error: 6,
} as const;

/** Bytes of the area that calls go through. */
const AREA = 32 * 1024;

const WORDS = LINE * (4 + MAX_QUEUES / LINE);

/** What the workers of one device ring, and the transport's side listens to. */
export class Bell {
  /** What crosses to the workers. */
  readonly buffer: SharedArrayBuffer;
  /** See `BellWord`. */
  readonly words: Int32Array;

  /** @param buffer The other side's; a new one unless given. */
  constructor(
    buffer: SharedArrayBuffer = new SharedArrayBuffer(4 * (BellWord.interrupts + MAX_QUEUES)),
  ) {
    this.buffer = buffer;
    this.words = new Int32Array(buffer);
  }

  /** Interrupts of a queue so far; wraps. What was there when `event` was read. */
  interrupts(queue: number): number {
    return this.words[BellWord.interrupts + queue]!;
  }

  /** The worker: a queue has used buffers. */
  interrupt(queue: number): void {
    // One thread writes it, and `ring` publishes it.
    this.words[BellWord.interrupts + queue]!++;
    this.ring();
  }

  /** There is something for the transport's side to look at. */
  ring(): void {
    const { words } = this;
    Atomics.add(words, BellWord.event, 1);
    if (Atomics.load(words, BellWord.asleep) === 0) return;
    if (Atomics.exchange(words, BellWord.asleep, 0) === 1) {
      Atomics.add(words, BellWord.notifications, 1);
      Atomics.notify(words, BellWord.event);
    }
  }
}

/** The shared memory of one worker, seen from either side. */
export class Link {
  /** What crosses to the other side. */
  readonly buffer: SharedArrayBuffer;
  /** See `Word`. */
  readonly words: Int32Array;
  /** Where the parts of calls lie. */
  readonly area: Uint8Array;

  /** @param buffer The other side's; a new one unless given. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(4 * WORDS + AREA)) {
    this.buffer = buffer;
    this.words = new Int32Array(buffer, 0, WORDS);
    this.area = new Uint8Array(buffer, 4 * WORDS, AREA);
  }

  /** The worker: takes the lease, or keeps it. @returns Whether it may go on; else it stops its device and calls `leave`. */
  enter(): boolean {
    const { free, held } = LeaseState;
    // Who asks for it, wakes the worker afterwards.
    if (this.words[Word.lease] === held) return true;
    const before = Atomics.compareExchange(this.words, Word.lease, free, held);
    return before === free || before === held;
  }

  /** The worker: about to sleep with nothing in flight. */
  rest(): void {
    Atomics.compareExchange(this.words, Word.lease, LeaseState.held, LeaseState.free);
  }

  /** The worker: touches nothing any more. */
  leave(): void {
    Atomics.store(this.words, Word.lease, LeaseState.gone);
    Atomics.notify(this.words, Word.lease);
  }

  /**
   * The transport's side: takes the lease from a worker.
   *
   * @param grace Milliseconds after which an ended thread cannot run any more.
   * @returns Nothing if it is taken, a promise if it will be.
   */
  revoke(grace: number): void | Promise<void> {
    const { words } = this;
    const { free, held, wanted, gone } = LeaseState;
    const before = Atomics.compareExchange(words, Word.lease, free, gone);
    if (before === free || before === gone) return;
    if (Atomics.compareExchange(words, Word.lease, held, wanted) === free) {
      return this.revoke(grace);
    }
    this.wakeWorker();
    const waiting = Atomics.waitAsync(words, Word.lease, wanted, grace);
    const done = (): void => void Atomics.store(words, Word.lease, gone);
    if (!waiting.async) return done();
    return waiting.value.then(done);
  }

  /** Kicks of a queue so far; wraps. What was there when `wake` was read. */
  kicks(queue: number): number {
    return this.words[Word.kicks + queue]!;
  }

  /** The transport's side: a queue was kicked. */
  kick(queue: number): void {
    // One thread writes it, and `wakeWorker` publishes it.
    this.words[Word.kicks + queue]!++;
    this.wakeWorker();
  }

  /** There is something for the worker to look at. */
  wakeWorker(): void {
    const { words } = this;
    Atomics.add(words, Word.wake, 1);
    if (Atomics.load(words, Word.workerAsleep) === 0) return;
    if (Atomics.exchange(words, Word.workerAsleep, 0) === 1) {
      Atomics.add(words, Word.notifications, 1);
      Atomics.notify(words, Word.wake);
    }
  }
}
