/** serve:console: a console for a virtual machine of another program, by vhost-user. `--help` says what it can do. */
import { openConsole } from "./serve/console.ts";
import { CONSOLE_HELP, readConsoleOptions } from "./serve/options.ts";
import { runServer } from "./serve/server.ts";

const status = await runServer({
  name: "serve:console",
  help: CONSOLE_HELP,
  readOptions: readConsoleOptions,
  open: openConsole,
});
Deno.exit(status);
