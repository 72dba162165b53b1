/** A network card in a worker. The switch is in the thread that made it: frames go there and back as messages. */
import { NetDevice } from "@virtio/net";
import { serveDevice } from "@virtio/worker/serve";
import { countCard } from "../../net/figures.ts";
import { Cable } from "./cable.ts";
import { receivePort } from "./channel.ts";

/** Which card it is. */
export interface NetWorkerData {
  readonly mac: string;
  readonly mtu: number;
}

const port = receivePort();
let card: NetDevice | null = null;
let cable: Cable | null = null;

serveDevice(async ({ mac, mtu }: NetWorkerData) => {
  cable = new Cable(await port);
  card = new NetDevice({ backend: cable, mac, mtu });
  return card;
}, { report: () => countCard(card!, cable!.dropped) });
