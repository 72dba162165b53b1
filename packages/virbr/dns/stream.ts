/** Questions by TCP (RFC 7766): each with its length before it, one after the other. */
import type { Guest } from "../ip/packet.ts";
import type { OutsideStream } from "../outside/outside.ts";
import type { DnsServer } from "./server.ts";

/** Milliseconds that a guest may be silent. */
const IDLE = 30_000;
/** Bytes of a question at most. */
const MOST = 4096;

/** Serves a connection of a guest's until it ends, is silent, or says what is no question. Never rejects. */
export async function serveStream(
  server: DnsServer,
  stream: OutsideStream,
  guest: Guest,
): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => stream.close(), IDLE);
  };
  try {
    for (;;) {
      wait();
      const size = await readAll(stream, 2);
      if (size === null) return;
      const length = size[0]! << 8 | size[1]!;
      if (length < 12 || length > MOST) return;
      const message = await readAll(stream, length);
      if (message === null) return;
      const answer = await server.answer(message, guest, "tcp");
      if (answer === null) return;
      const framed = new Uint8Array(2 + answer.length);
      framed[0] = answer.length >> 8;
      framed[1] = answer.length & 0xff;
      framed.set(answer, 2);
      wait();
      for (let at = 0; at < framed.length;) at += await stream.write(framed.subarray(at));
    }
  } catch {
    // The guest is gone, or closed it.
  } finally {
    clearTimeout(timer);
    stream.close();
  }
}

async function readAll(stream: OutsideStream, size: number): Promise<Uint8Array | null> {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size;) {
    const count = await stream.read(bytes.subarray(at));
    if (count === null) return null;
    at += count;
  }
  return bytes;
}
