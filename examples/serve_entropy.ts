/** serve:entropy: random bytes for a virtual machine of another program, by vhost-user. `--help` says what it can do. */
import { EntropyDevice } from "./my_device.ts";
import { Meter } from "./serve/meter.ts";
import { ENTROPY_HELP, readEntropyOptions } from "./serve/options.ts";
import { offerOf, runServer } from "./serve/server.ts";

const status = await runServer({
  name: "serve:entropy",
  help: ENTROPY_HELP,
  readOptions: readEntropyOptions,
  open({ sockets }) {
    const device = new EntropyDevice();
    const meter = new Meter(device);
    const figures = () => ({
      requests: device.queueCounters[0]!.chains,
      bytesRead: device.bytes,
      bytesWritten: 0,
      time: meter.time,
    });
    return {
      offers: [offerOf(sockets[0]!, device, figures)],
      what: "random bytes",
      close: () => {},
    };
  },
});
Deno.exit(status);
