/**
 * A network card in a worker. The switch is in the thread that made it: frames go there and back as messages, over a channel
 * of the origin's that only these two know.
 */
import { NetDevice } from "@virtio/net";
import { BroadcastBackend } from "@virtio/net/broadcast";
import { serveDevice } from "@virtio/worker/serve";
import { countCard } from "../../net/figures.ts";

/** Which card it is. */
export interface NetWorkerData {
  /** Name of the channel. */
  readonly cable: string;
  readonly mac: string;
  readonly mtu: number;
}

let card: NetDevice | null = null;

serveDevice(({ cable, mac, mtu }: NetWorkerData) => {
  card = new NetDevice({ backend: new BroadcastBackend(cable), mac, mtu });
  return card;
}, { report: () => countCard(card!) });
