/**
 * A channel between a device's worker and the thread that made it. Not a BroadcastChannel: of those Deno keeps no more than 256
 * messages for a thread that is busy, and drops the rest.
 */

/** The first message to the worker. */
interface PortMessage {
  readonly examplePort: MessagePort;
}

/** For `WorkerDeviceOptions.spawn`: makes a worker that gets a port before anything else. */
export function spawnWith(port: MessagePort): (source: URL | string) => Worker {
  return (source) => {
    const worker = new Worker(source, { type: "module" });
    worker.postMessage({ examplePort: port } satisfies PortMessage, [port]);
    return worker;
  };
}

/** In the worker, at the top of its module: resolves with the port. */
export function receivePort(): Promise<MessagePort> {
  return new Promise((resolve) => {
    const listener = ({ data }: MessageEvent<Partial<PortMessage>>): void => {
      if (data.examplePort === undefined) return;
      self.removeEventListener("message", listener);
      resolve(data.examplePort);
    };
    self.addEventListener("message", listener);
  });
}
