/** An echo device with as many queues as a test wants, in a worker. */
import { serveDevice } from "@virtio/worker/serve";
import { EchoDevice } from "../../transport/testing/echo_device.ts";

serveDevice((queues: number) => new EchoDevice({ queueSizes: new Array(queues).fill(4) }));
