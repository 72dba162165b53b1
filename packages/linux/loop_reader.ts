import { closeDescriptor, duplicateDescriptor } from "./descriptor.ts";

/** What is used here of Node's API, with the class behind its pipes: that is no public part. */
interface Pipe {
  open(descriptor: number): number;
}
interface Socket {
  on(event: "error" | "end" | "close", run: () => void): void;
  resume(): void;
  destroy(): void;
}
interface NodeProcess {
  binding?(name: string): {
    readonly Pipe: new (kind: number) => Pipe;
    readonly constants: { readonly SOCKET: number };
  };
  getBuiltinModule?(name: string): { readonly Socket: new (options: object) => Socket };
}

/**
 * Reads a descriptor whenever it can be read, whatever it is of, woken by the event loop itself: its own wait includes the
 * descriptor. A wait in another thread (`PollSet.waitLater`) costs two threads their sleep for each thing that comes, and has
 * the scheduler decide twice; on a busy machine that shows.
 *
 * Deno has no public way to have its event loop wait for any descriptor. The class behind Node's pipes takes all of them, so
 * that is what is used where it is there; `open` says if it is not.
 */
export class LoopReader {
  readonly #socket: Socket;
  readonly #run: (count: number) => void;
  readonly #done: Promise<void>;
  #closed = false;

  private constructor(socket: Socket, run: (count: number) => void) {
    this.#socket = socket;
    this.#run = run;
    this.#done = new Promise((resolve) => socket.on("close", resolve));
    const end = (): void => {
      this.#tell(0);
      this.#closed = true;
    };
    socket.on("error", end);
    socket.on("end", end);
    socket.resume();
  }

  /**
   * Begins to read.
   *
   * @param descriptor Must be nonblocking. It stays the caller's: this reads through another one for the same thing.
   * @param buffer Where what comes is put, as much of it as one call of `read` gives.
   * @param run Told how many bytes came; 0 once when no more will, since it ended or the system refused. It may read on by
   *   itself, and should, up to a bound: to come back here costs more.
   * @returns Null where it does not work: in another runtime, or in a worker, since an event loop that has messages again and
   *   again does not look at anything else.
   * @throws {SystemError} If there are too many descriptors.
   */
  static open(
    descriptor: number,
    buffer: Uint8Array,
    run: (count: number) => void,
  ): LoopReader | null {
    const node = find();
    if (node === null) return null;
    const { handle, Socket } = node;
    const own = duplicateDescriptor(descriptor);
    if (handle.open(own) !== 0) {
      closeDescriptor(own);
      return null;
    }
    const callback = (count: number): boolean => {
      reader.#tell(count);
      return true;
    };
    const onread = { buffer, callback };
    const reader = new LoopReader(
      new Socket({ handle, readable: true, writable: false, onread }),
      run,
    );
    return reader;
  }

  /** Ends it: nothing is told any more. Resolves when its descriptor is closed. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#socket.destroy();
    await this.#done;
  }

  #tell(count: number): void {
    if (!this.#closed) this.#run(count);
  }
}

function find():
  | { readonly handle: Pipe; readonly Socket: new (options: object) => Socket }
  | null {
  if ("WorkerGlobalScope" in globalThis) return null;
  const { process } = globalThis as { process?: NodeProcess };
  try {
    const { Pipe, constants } = process!.binding!("pipe_wrap");
    const { Socket } = process!.getBuiltinModule!("node:net");
    return { handle: new Pipe(constants.SOCKET), Socket };
  } catch {
    return null;
  }
}
