/** An echo device in a worker, for tests: a driver that writes to byte 8 of its configuration brings its thread to a stop. */
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
  return device;
});
