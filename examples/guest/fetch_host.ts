/**
 * Gets Linux for the host's own processor: User Mode Linux, which is an ordinary program, and a kernel for QEMU. Both come
 * from Debian as in `fetch.ts`.
 */
import { FetchError } from "./apt.ts";
import { readDeb } from "./deb.ts";
import { cached, defaultCache, type FetchOptions, need, readModules } from "./fetch.ts";
import { moduleName } from "./modules.ts";

export { FetchError };

/** A kernel that programs of the host start, by its path, and what its user space is made of. */
export interface HostGuestFiles {
  /** Release as `uname -r` says it. */
  readonly kernelRelease: string;
  /** Where the kernel is. */
  readonly kernelPath: string;
  /** Static busybox. */
  readonly busybox: Uint8Array;
  /** Modules by name, closed under dependencies. */
  readonly modules: ReadonlyMap<string, Uint8Array>;
}

const UML_MODULES = [
  ...["virtio_blk", "virtio_net", "failover", "net_failover", "virtio_console", "virtio_balloon"],
];

const PC_KERNEL = "linux-image-cloud-amd64";
const PC_MODULES = [
  ...["virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"],
  ...["virtio_blk", "failover", "net_failover", "virtio_net", "virtio_console", "virtio_rng"],
  ...["ext4", "jbd2", "mbcache", "crc16", "crc32c_generic", "libcrc32c"],
];

/** Debian's name of this machine's processor. @throws {FetchError} If there is no kernel for it here. */
function architecture(): string {
  if (Deno.build.os === "linux" && Deno.build.arch === "x86_64") return "amd64";
  throw new FetchError(
    `User Mode Linux and QEMU's kernel are for Linux on x86_64, and this is ${Deno.build.os} on ${Deno.build.arch}`,
  );
}

async function readBusybox(deb: string): Promise<Uint8Array> {
  const path = /^(usr\/)?bin\/busybox$/;
  const found = await readDeb(deb, (name) => path.test(name));
  return need(new Map([...found.values()].map((bytes) => ["busybox", bytes])), "busybox", deb);
}

/** What a bundle is to those who boot it. */
function hostGuest(
  folder: string,
  facts: Readonly<Record<string, string>>,
  files: ReadonlyMap<string, Uint8Array>,
): HostGuestFiles {
  const modules = new Map<string, Uint8Array>();
  for (const [name, bytes] of files) {
    if (name.startsWith("modules/")) modules.set(moduleName(name), bytes);
  }
  return {
    kernelRelease: facts.kernelRelease!,
    kernelPath: `${folder}/kernel`,
    busybox: files.get("busybox")!,
    modules,
  };
}

function bundleFiles(
  kernel: Uint8Array,
  busybox: Uint8Array,
  modules: ReadonlyMap<string, Uint8Array>,
): Map<string, Uint8Array> {
  const files = new Map([["kernel", kernel], ["busybox", busybox]]);
  for (const [name, bytes] of modules) files.set(`modules/${name}.ko`, bytes);
  return files;
}

/**
 * User Mode Linux: from the cache, or from Debian.
 *
 * @throws {FetchError} If it cannot be had; the message is one sentence for the user.
 */
export async function fetchUml(options: FetchOptions = {}): Promise<HostGuestFiles> {
  const processor = architecture();
  const { facts, files } = await cached(
    "uml",
    `user-mode-linux busybox ${UML_MODULES.join(" ")}`,
    options,
    async (apt, debs, progress) => {
      const [deb, busybox] = await apt.download(["user-mode-linux", "busybox-static"], debs);
      progress("opening user-mode-linux");
      const path = "usr/bin/linux.uml";
      const list = /^usr\/lib\/uml\/modules\/([^/]+)\/modules\.order$/;
      const { modules, others } = await readModules(
        deb!,
        UML_MODULES,
        (name) => name === path || list.test(name),
      );
      const kernelRelease = [...others.keys()].map((name) => list.exec(name)?.[1])
        .find((release) => release !== undefined);
      if (kernelRelease === undefined) {
        throw new FetchError("The Debian package user-mode-linux has no modules");
      }
      const kernel = need(others, path, "user-mode-linux");
      return {
        facts: { kernelRelease },
        files: bundleFiles(kernel, await readBusybox(busybox!), modules),
      };
    },
    processor,
  );
  const guest = hostGuest(`${options.cache ?? defaultCache()}/uml`, facts, files);
  await Deno.chmod(guest.kernelPath, 0o755);
  return guest;
}

/**
 * Debian's kernel for virtual machines, for QEMU: from the cache, or from Debian.
 *
 * @throws {FetchError} If it cannot be had; the message is one sentence for the user.
 */
export async function fetchPc(options: FetchOptions = {}): Promise<HostGuestFiles> {
  const processor = architecture();
  const { facts, files } = await cached(
    "pc",
    `${PC_KERNEL} busybox ${PC_MODULES.join(" ")}`,
    options,
    async (apt, debs, progress) => {
      const image = await apt.resolve(PC_KERNEL, "linux-image-");
      const release = image.replace("linux-image-", "");
      const [deb, busybox] = await apt.download([image, "busybox-static"], debs);
      progress(`opening ${image}`);
      const path = `boot/vmlinuz-${release}`;
      const { modules, others } = await readModules(deb!, PC_MODULES, (name) => name === path);
      return {
        facts: { kernelRelease: release },
        files: bundleFiles(need(others, path, image), await readBusybox(busybox!), modules),
      };
    },
    processor,
  );
  return hostGuest(`${options.cache ?? defaultCache()}/pc`, facts, files);
}
