/**
 * An echo device in a worker, for tests: a driver that writes to byte 8 of its configuration brings its thread to a stop, and
 * each kick of queue 1 is counted in the configuration, from byte 12. What it says of itself is longer than a call's area.
 */
import { serveDevice } from "@virtio/worker/serve";
import { EchoDevice } from "../../transport/testing/echo_device.ts";

serveDevice(() => {
  const device = new EchoDevice({ queueSizes: [16, 16] });
  const { config } = device;
  const write = config.write.bind(config);
  config.write = (offset, size, value) => {
    if (offset === 8) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    return write(offset, size, value);
  };
  const notify = device.notify.bind(device);
  device.notify = (index) => {
    notify(index);
    if (index === 1) {
      config.update((view) => view.setUint32(12, view.getUint32(12, true) + 1, true));
    }
  };
  return device;
}, { report: () => "long ".repeat(20_000) });
