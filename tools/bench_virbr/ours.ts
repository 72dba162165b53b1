/**
 * Our network for a namespace: `ours.ts NETNS_PATH TAP MTU` makes a tap there, joins it to a port, and says "ready". Ended by a
 * signal.
 */
import { TapBackend } from "@virtio/net/tap";
import { Virbr } from "@virtio/virbr";
import { denoOutside } from "@virtio/virbr/outside/deno";

const [namespace, name, mtu] = Deno.args;
if (namespace === undefined || name === undefined || mtu === undefined) {
  console.error("Usage: ours.ts NETNS_PATH TAP MTU");
  Deno.exit(2);
}
// The bench connects for a second as often as it can.
const net = new Virbr({
  mtu: Number(mtu),
  outside: denoOutside(),
  flowRate: 1e6,
  flowBurst: 1e6,
  maxFlows: 65_536,
});
const tap = TapBackend.open({ name, namespace });
net.port({ name }).plug(tap);
await net.ready;
console.log("ready");
await new Promise<void>((resolve) => Deno.addSignalListener("SIGTERM", resolve));
await tap.close();
await net.close();
Deno.exit(0);
