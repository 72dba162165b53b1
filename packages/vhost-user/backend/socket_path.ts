/** A socket's path that one server has. */
import { Errno, lockFile, SystemError, UnixListener, UnixSocket } from "@virtio/linux";

/** A listening socket, its file, and the lock that keeps others away. */
export class OwnedSocket {
  /** The socket. */
  readonly listener: UnixListener;
  readonly #release: () => void;

  /**
   * Takes a path. The file of a server that is no more is replaced.
   *
   * @throws {TypeError} If a server is there, or a file that is no socket.
   * @throws {SystemError} If the system refuses.
   */
  constructor(path: string) {
    const release = lockFile(`${path}.lock`);
    if (release === null) {
      throw new TypeError(`Another server has ${path}: end it, or choose another path`);
    }
    this.#release = release;
    try {
      clear(path);
      this.listener = new UnixListener(path);
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Closes the socket and removes its file. */
  close(): void {
    this.listener.close();
    try {
      Deno.removeSync(this.listener.path);
    } catch {
      // Somebody did it already.
    }
    this.#release();
  }
}

function clear(path: string): void {
  let file: Deno.FileInfo;
  try {
    file = Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  if (!file.isSocket) throw new TypeError(`${path} is there, and no socket: choose another path`);
  try {
    UnixSocket.connect(path).close();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (error.errno === Errno.ECONNREFUSED) return Deno.removeSync(path);
    // Its queue is full: somebody listens.
    if (error.errno !== Errno.EAGAIN) throw error;
  }
  throw new TypeError(`A program that is no server of this kind listens at ${path}`);
}
