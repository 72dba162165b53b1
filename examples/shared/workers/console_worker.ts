/** A console device in a worker. What is behind its ports is in the thread that made it: bytes go there and back as messages. */
import { type ConsoleBackend, ConsoleDevice, type ConsolePort } from "@virtio/console";
import { serveDevice } from "@virtio/worker/serve";
import { receivePort } from "./channel.ts";
import type {
  ConsoleWorkerData,
  ConsoleWorkerReport,
  FromConsole,
  PortData,
  ToConsole,
} from "./console_messages.ts";
import { Wire, type WireMessage } from "./wire.ts";

/** A port's back end, as far as it is here. */
class RemoteBackend implements ConsoleBackend {
  port: ConsolePort | null = null;
  readonly #wire: Wire;
  readonly #post: (message: FromConsole) => void;
  readonly #key: number;

  constructor(key: number, post: (message: FromConsole) => void) {
    this.#key = key;
    this.#post = post;
    this.#wire = new Wire({
      post: (wire) => post({ key, wire }),
      take: (bytes, offset, length) => this.port?.write(bytes, offset, length) ?? length,
      drained: () => this.port?.resume(),
    });
  }

  attached(port: ConsolePort): void {
    this.port = port;
  }

  detached(): void {
    this.port = null;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    return this.#wire.send(bytes, offset, length);
  }

  inputDrained(): void {
    this.#wire.pump();
  }

  guestOpened(guestOpen: boolean): void {
    this.#post({ key: this.#key, guestOpen });
  }

  heard(message: WireMessage): void {
    this.#wire.heard(message);
  }
}

let device: ConsoleDevice | null = null;

const channelCame = receivePort();

serveDevice(async ({ ports, maxPorts }: ConsoleWorkerData) => {
  const channel = await channelCame;
  const backends = new Map<number, RemoteBackend>();
  const make = ({ key, ...options }: PortData) => {
    const backend = new RemoteBackend(key, (message) => channel.postMessage(message));
    backends.set(key, backend);
    return { ...options, backend };
  };
  const made = new ConsoleDevice({ ports: ports.map(make), maxPorts });
  channel.onmessage = ({ data }: MessageEvent<ToConsole>) => {
    if ("add" in data) {
      made.addPort(make(data.add));
      return;
    }
    const key = "remove" in data ? data.remove : data.key;
    const backend = backends.get(key);
    const port = backend?.port;
    if (backend === undefined || port == null) return;
    if ("remove" in data) {
      backends.delete(key);
      made.removePort(port.id);
    } else if ("wire" in data) {
      backend.heard(data.wire);
    } else if ("size" in data) {
      port.resize(...data.size);
    } else if (data.open) {
      port.open();
    } else {
      port.close();
    }
  };
  device = made;
  return made;
}, { report: (): ConsoleWorkerReport => ({ ...device!.stats }) });
