/** The worker of our server. */
import { serveVhostUser } from "@virtio/vhost-user/worker";
import { makeDisk } from "./disk.ts";

// A thread of a disk on system calls waits for nothing but its driver, and what the disk itself tells.
serveVhostUser(makeDisk, { events: false });
