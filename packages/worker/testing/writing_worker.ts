/** A device in a worker that fills what it may write: at once, or a turn later if there is something to read before it. */
import { type Handled, HOLD, QueueDevice } from "@virtio/device";
import type { Chain } from "@virtio/vring";
import { serveDevice } from "@virtio/worker/serve";

class WritingDevice extends QueueDevice {
  constructor() {
    super({ type: 4, queueSizes: [8] });
  }

  protected override handle(chain: Chain, queue: number): Handled {
    if (chain.readable === 0) {
      chain.writer.fill(7, chain.writable);
      return;
    }
    setTimeout(() => {
      chain.writer.fill(7, chain.writable);
      this.complete(queue, chain);
    }, 1);
    return HOLD;
  }
}

serveDevice(() => new WritingDevice(), {
  events: !new URL(import.meta.url).search.includes("sleep"),
});
