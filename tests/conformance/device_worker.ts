/** The devices of `places.ts` in a worker. */
import { serveDevice } from "@virtio/worker/serve";
import { makeDevice } from "./places.ts";

serveDevice(makeDevice);
