/** Sends every frame back, as testpmd's forwarding "io" does. */
import { NetDevice } from "@virtio/net";
import { LoopbackBackend } from "@virtio/net/loopback";
import { serveVhostUser } from "@virtio/vhost-user/worker";

serveVhostUser(
  (mac: string) => new NetDevice({ backend: new LoopbackBackend(), mac }),
  { events: false },
);
