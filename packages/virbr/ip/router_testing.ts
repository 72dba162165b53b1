import { Frame, type FrameSink, type NetBackend, Offload, pass } from "@virtio/net";

/** The other end of the uplink: a host that keeps what comes. */
export class TestUplink implements NetBackend {
  readonly offloads: number = Offload.all;
  readonly frames: { bytes: Uint8Array; gsoSize: number }[] = [];
  onLinkChange: (() => void) | null = null;
  peer: FrameSink | null = null;

  connect(peer: FrameSink | null): void {
    this.peer = peer;
  }

  deliver(frame: Frame): void {
    this.frames.push({ bytes: frame.bytes.slice(), gsoSize: frame.gsoSize });
  }

  send(bytes: Uint8Array): void {
    pass(new Frame().fromBytes(bytes), this.peer!);
  }
}
