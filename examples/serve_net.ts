/** serve:net: network cards for virtual machines of other programs, by vhost-user. `--help` says what it can do. */
import { TapError } from "@virtio/net/tap";
import { OutsideError } from "@virtio/virbr";
import { openNetwork } from "./serve/network.ts";
import { NET_HELP, readNetOptions } from "./serve/options.ts";
import { runServer } from "./serve/server.ts";

const status = await runServer({
  name: "serve:net",
  help: NET_HELP,
  readOptions: readNetOptions,
  open: openNetwork,
  errors: [TapError, OutsideError, SyntaxError],
});
Deno.exit(status);
