/**
 * Serves the picture of devices' rings to a browser on this machine. Whoever has the address can hold a guest's requests up,
 * so it has a secret in it.
 */
import { type InspectCommand, type InspectedDevice, Inspector } from "@virtio/inspect";
import { bundle, endBundling } from "../../../tools/bundle.ts";

/** Milliseconds between two looks. */
const LOOK = 200;

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>virtio rings</title>
<link rel="icon" href="data:,">
<style>
  body { margin: 0 auto; max-width: 720px; padding: 16px; font: 15px/1.5 system-ui, sans-serif; }
  h1 { font-size: 18px; margin: 0; }
  #state { color: GrayText; margin: 0 0 10px; }
</style>
<h1>virtio rings</h1>
<p id="state" role="status">Connecting</p>
<virtio-rings></virtio-rings>
<script type="module" src="page.js"></script>
</html>
`;

/** A running server. */
export interface InspectServer extends AsyncDisposable {
  /** Where to look. */
  readonly address: string;
}

/**
 * Starts serving on a free port of loopback.
 *
 * @param devices What is to be seen.
 */
export async function serveInspector(devices: readonly InspectedDevice[]): Promise<InspectServer> {
  const script = await bundle("examples/shared/inspect/page.ts", { minify: true });
  await endBundling();
  const inspector = new Inspector(devices);
  const secret = crypto.randomUUID();
  const sockets = new Set<WebSocket>();
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    const { pathname } = new URL(request.url);
    if (!pathname.startsWith(`/${secret}/`)) return new Response(null, { status: 403 });
    switch (pathname.slice(secret.length + 2)) {
      case "":
        return new Response(PAGE, { headers: { "content-type": "text/html; charset=utf-8" } });
      case "page.js":
        return new Response(script as Uint8Array<ArrayBuffer>, {
          headers: { "content-type": "text/javascript" },
        });
      case "rings": {
        if (request.headers.get("upgrade") !== "websocket") break;
        const { socket, response } = Deno.upgradeWebSocket(request);
        look(socket, inspector, sockets);
        return response;
      }
    }
    return new Response(null, { status: 404 });
  });
  return {
    address: `http://127.0.0.1:${server.addr.port}/${secret}/`,
    async [Symbol.asyncDispose]() {
      inspector.releaseAll();
      for (const socket of sockets) socket.close();
      await server.shutdown();
    },
  };
}

function look(socket: WebSocket, inspector: Inspector, sockets: Set<WebSocket>): void {
  let timer: ReturnType<typeof setInterval> | undefined;
  const show = (): void => {
    // A page that does not keep up is shown less.
    if (socket.bufferedAmount < 1 << 20) socket.send(JSON.stringify(inspector.snapshot()));
  };
  socket.onopen = () => {
    sockets.add(socket);
    timer = setInterval(show, LOOK);
    show();
  };
  socket.onmessage = ({ data }) => {
    let command: InspectCommand;
    try {
      command = JSON.parse(String(data));
    } catch {
      return;
    }
    if (inspector.command(command)) show();
  };
  socket.onclose = () => {
    clearInterval(timer);
    sockets.delete(socket);
    // What the last one who looked held must not stay so.
    if (sockets.size === 0) inspector.releaseAll();
  };
}
