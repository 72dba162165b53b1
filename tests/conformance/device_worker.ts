/**
 * The devices of `placed_devices.ts` in a worker: one for each message, served over the port that comes with it. A test
 * meddles with a device by calls, over a line of shared memory.
 */
import { serveDevice } from "@virtio/worker/serve";
import { CallTaker } from "../../packages/worker/call.ts";
import { Link, Word } from "../../packages/worker/words.ts";
import { turns } from "../../packages/device/testing.ts";
import { type DeviceData, type Kind, makeDevice } from "./placed_devices.ts";

/** How a device is asked for. */
export interface Opening {
  readonly port: MessagePort;
  readonly line: SharedArrayBuffer;
  readonly kind: Kind;
}

/** What a test wants. */
export type Errand =
  /** Have a function called with the insides of the device and some arguments. It sees nothing else. */
  | { readonly text: string; readonly args: unknown[] }
  /** Let so many turns of the event loop pass, and say so over the port too: whatever was posted comes before that. */
  | { readonly turns: number }
  | { readonly end: true };

async function attend(line: Link, insides: unknown, port: MessagePort): Promise<void> {
  const calls = new CallTaker(line);
  for (;;) {
    const seen = Atomics.load(line.words, Word.wake);
    const call = calls.take();
    if (call === null) {
      Atomics.store(line.words, Word.workerAsleep, 1);
      const waiting = Atomics.waitAsync(line.words, Word.wake, seen);
      if (waiting.async) await waiting.value;
      continue;
    }
    const errand = call.with as Errand;
    if ("end" in errand) return calls.answer(null);
    try {
      if ("turns" in errand) {
        await turns(errand.turns);
        port.postMessage({ turned: true });
        calls.answer(null);
      } else {
        const action = new Function(`return ${errand.text}`)();
        calls.answer(action(insides, ...errand.args));
      }
    } catch (error) {
      calls.refuse(error);
    }
  }
}

addEventListener("message", (event) => {
  const { port, line, kind } = (event as MessageEvent<Opening>).data;
  serveDevice((data: DeviceData[Kind]) => {
    const insides = makeDevice(kind, data);
    void attend(new Link(line), insides, port);
    return insides.device;
  }, { port: port as never });
  port.start();
});
