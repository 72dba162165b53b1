/** Devices served by vhost-user for the time of a test. */
import { BlkDevice, type BlkDeviceOptions } from "@virtio/blk";
import { LinuxBackend, type LinuxBackendOptions } from "@virtio/blk/linux";
import type { Device } from "@virtio/device";
import {
  VHOST_USER_FEATURES,
  VhostUserServer,
  type VhostUserServerOptions,
} from "@virtio/vhost-user";
import { VIRTIO_F_RING_PACKED } from "@virtio/device";

/** A folder with sockets and images, and servers. Nothing is left of it. */
export class ServedDevices implements AsyncDisposable {
  /** Where they are. */
  readonly folder: string;
  /** What went wrong. */
  readonly errors: Error[] = [];
  readonly #servers: VhostUserServer[] = [];
  readonly #backends: LinuxBackend[] = [];
  #folders = 0;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** An empty one. */
  static async make(): Promise<ServedDevices> {
    // The path of a socket has a limit, so this one is short.
    return new ServedDevices(await Deno.makeTempDir({ prefix: "vu-" }));
  }

  /** A folder for a guest's own files. */
  async guestFolder(): Promise<string> {
    const folder = `${this.folder}/guest${this.#folders++}`;
    await Deno.mkdir(folder);
    return folder;
  }

  /** Serves a device. @returns The path of its socket. */
  serve(
    name: string,
    device: VhostUserServerOptions["device"],
    options: Partial<VhostUserServerOptions> & { readonly packed?: boolean } = {},
  ): string {
    const { packed = true, ...rest } = options;
    const socket = `${this.folder}/${name}.sock`;
    const features = packed ? VHOST_USER_FEATURES : VHOST_USER_FEATURES & ~VIRTIO_F_RING_PACKED;
    this.#servers.push(
      new VhostUserServer({
        socket,
        device,
        features,
        onError: (error) => this.errors.push(error),
        ...rest,
      }),
    );
    return socket;
  }

  /** The server that was made last. */
  get last(): VhostUserServer {
    return this.#servers.at(-1)!;
  }

  /** A disk of some size on an image of its own, not served yet. */
  disk(
    name: string,
    megabytes: number,
    options: Partial<BlkDeviceOptions> & Pick<LinuxBackendOptions, "engine" | "direct"> = {},
  ): { readonly device: BlkDevice; readonly image: string; readonly backend: LinuxBackend } {
    const { engine, direct, ...rest } = options;
    const image = `${this.folder}/${name}.raw`;
    const backend = LinuxBackend.open(image, {
      create: true,
      size: megabytes * 2 ** 20,
      ...(engine === undefined ? {} : { engine }),
      ...(direct === undefined ? {} : { direct }),
    });
    this.#backends.push(backend);
    return { device: new BlkDevice({ backend, id: name, ...rest }), image, backend };
  }

  /** Ends the servers. */
  async end(): Promise<void> {
    await Promise.all(this.#servers.splice(0).map((server) => server.close()));
    for (const backend of this.#backends.splice(0)) await backend.close();
  }

  /** Ends the servers and removes everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** What the queues of a device did, all together. */
export function chainsOf(
  device: Device & { queueCounters: readonly { chains: number }[] },
): number {
  return device.queueCounters.reduce((sum, { chains }) => sum + chains, 0);
}
