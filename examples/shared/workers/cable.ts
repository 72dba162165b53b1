/** A cable between a network card in a worker and the thread that made it: frames as messages, with a bound on what is under way. */
import { Frame, type FrameSink, type NetBackend, Offload, pass } from "@virtio/net";

/** What crosses. The ends are of one program and believe each other. */
type CableMessage =
  /** A frame with flags, gso_type, hdr_len, gso_size, csum_start, csum_offset. */
  | { readonly bytes: Uint8Array<ArrayBuffer>; readonly header: readonly number[] }
  /** So much of what was sent has come. */
  | { readonly taken: number };

/** What may be under way in one direction; what comes on top is dropped, as by a switch whose port is full. */
const WINDOW = 8 << 20;
/** A frame counts as its bytes and these. */
const OVERHEAD = 256;

/** One end of a cable. */
export class Cable implements NetBackend {
  /** Takes every frame as it is: who receives it finishes it if need be. */
  readonly offloads: number = Offload.all;
  /** Frames dropped because too many were under way, or nobody was connected at this end. */
  dropped = 0;
  readonly #port: MessagePort;
  readonly #frame = new Frame();
  #peer: FrameSink | null = null;
  /** Sent and not known to have come. */
  #underWay = 0;
  /** What came and was not told. */
  #taken = 0;

  constructor(port: MessagePort) {
    this.#port = port;
    port.onmessage = ({ data }) => this.#heard(data as CableMessage);
  }

  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  deliver(frame: Frame): void {
    const cost = frame.length + OVERHEAD;
    if (this.#underWay + cost > WINDOW) {
      this.dropped++;
      return;
    }
    this.#underWay += cost;
    const { flags, gsoType, headerLength, gsoSize, csumStart, csumOffset } = frame;
    const bytes = new Uint8Array(frame.length);
    bytes.set(frame.bytes);
    const header = [flags, gsoType, headerLength, gsoSize, csumStart, csumOffset];
    this.#port.postMessage({ bytes, header } satisfies CableMessage, [bytes.buffer]);
  }

  close(): void {
    this.#port.close();
  }

  #heard(message: CableMessage): void {
    if ("taken" in message) {
      this.#underWay -= message.taken;
      return;
    }
    const { bytes, header } = message;
    this.#taken += bytes.length + OVERHEAD;
    if (this.#taken >= WINDOW / 4) {
      this.#port.postMessage({ taken: this.#taken } satisfies CableMessage);
      this.#taken = 0;
    }
    const frame = this.#frame.fromBytes(bytes);
    [
      frame.flags,
      frame.gsoType,
      frame.headerLength,
      frame.gsoSize,
      frame.csumStart,
      frame.csumOffset,
    ] = header as [number, number, number, number, number, number];
    if (this.#peer === null || !pass(frame, this.#peer)) this.dropped++;
  }
}
