/** Our server, as bench:vhost-blk starts it: socket, image, where the device runs, queues, and whether past the page cache. */
import { VhostUserServer, VhostUserWorkers } from "@virtio/vhost-user";
import { type DiskData, makeDisk } from "./disk.ts";

const [socket, image, place, queues, direct] = Deno.args as [
  string,
  string,
  string,
  string,
  string,
];
const data: DiskData = { image, queues: Number(queues), direct: direct === "direct" };
const worker = (): Worker =>
  new Worker(import.meta.resolve("./disk_worker.ts"), { type: "module" });
const device = place === "process" ? makeDisk(data) : await VhostUserWorkers.open({
  worker,
  data,
  workers: place === "worker" ? 1 : data.queues,
});
const server = new VhostUserServer({
  socket,
  device,
  onError: (error) => console.error(error.message),
});
Deno.addSignalListener("SIGTERM", async () => {
  await server.close();
  Deno.exit(0);
});
