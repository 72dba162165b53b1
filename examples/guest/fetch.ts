/**
 * Gets what a guest is made of: Debian's kernel for i386 with its modules, busybox, and for a boot from disk SeaBIOS and
 * GRUB. Packages come through apt (see `apt.ts`), the files taken out of them stay in an ignored folder of this repository
 * with their hashes, and nothing is fetched again while those hold.
 */
import { unpackKernel } from "@virtio/v86";
import { sha256 } from "../shared/bytes.ts";
import { FetchError, PrivateApt } from "./apt.ts";
import { readDeb } from "./deb.ts";
import { missingModules, moduleName } from "./modules.ts";

export { FetchError };

/** How to fetch. */
export interface FetchOptions {
  /** Folder of the cache; `VIRTIO_GUEST_CACHE`, or `.cache/guest` at the root of the repository, unless given. */
  readonly cache?: string;
  /** Told what happens, a line at a time. */
  readonly progress?: (line: string) => void;
}

/** A kernel and what its user space is made of. */
export interface GuestFiles {
  /** Release as `uname -r` says it, for example `6.1.0-50-686`. */
  readonly kernelRelease: string;
  /** The kernel as the distribution ships it. */
  readonly bzImage: Uint8Array;
  /** The same kernel unpacked, which starts several seconds sooner; the bzImage again where it cannot be unpacked. */
  readonly kernel: Uint8Array;
  /** Static busybox. */
  readonly busybox: Uint8Array;
  /** Modules by name, closed under dependencies. */
  readonly modules: ReadonlyMap<string, Uint8Array>;
}

/** What a boot from disk needs beside a kernel. */
export interface FirmwareFiles {
  /** SeaBIOS for a PC. */
  readonly bios: Uint8Array;
  /** BIOS of the standard display adapter. */
  readonly vgaBios: Uint8Array;
  /** GRUB's modules and images for `i386-pc`, by file name. */
  readonly grub: ReadonlyMap<string, Uint8Array>;
}

const KERNEL = "linux-image-686";
const MODULES = [
  ...["virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"],
  ...["virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net", "virtio_console"],
  ...["virtio_balloon", "virtio_rng", "virtio_input", "virtio_scsi"],
  ...["ext4", "crc32c_generic", "vfat", "nls_cp437", "nls_ascii"],
  ...["8021q", "garp", "mrp", "stp", "llc", "macvlan"],
  // v86's own IDE disk, to compare with.
  ...["ata_piix", "libata", "sd_mod"],
  // What those need is found out anyway, but each round reads the whole package again.
  ...["jbd2", "mbcache", "crc16", "fat", "scsi_mod", "scsi_common", "t10_pi", "crc_t10dif"],
  ...["crct10dif_common", "crc64_rocksoft", "crc64"],
];

/** What is in the cache: files by name with their hashes, and facts about them. */
interface Manifest {
  /** What it was made of: a cache of another recipe counts as empty. */
  readonly recipe: string;
  readonly facts: Record<string, string>;
  readonly files: Record<string, string>;
}

/** Files that were made together, and facts about them. */
export interface Bundle {
  readonly facts: Record<string, string>;
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/** The cache's folder, unless another is given. */
export function defaultCache(): string {
  return Deno.env.get("VIRTIO_GUEST_CACHE") ??
    new URL("../../.cache/guest", import.meta.url).pathname;
}

/** Reads a bundle from the cache; null if it is not there, made otherwise, or any file is not what was stored. */
async function readBundle(folder: string, recipe: string): Promise<Bundle | null> {
  try {
    const manifest = JSON.parse(await Deno.readTextFile(`${folder}/manifest.json`)) as Manifest;
    if (manifest.recipe !== recipe) return null;
    const files = new Map<string, Uint8Array>();
    for (const [name, hash] of Object.entries(manifest.files)) {
      const bytes = await Deno.readFile(`${folder}/${name}`);
      if (await sha256(bytes) !== hash) return null;
      files.set(name, bytes);
    }
    return { facts: manifest.facts, files };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return null;
    throw error;
  }
}

async function writeBundle(folder: string, recipe: string, bundle: Bundle): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const hashes: Record<string, string> = {};
  for (const [name, bytes] of bundle.files) {
    const path = `${folder}/${name}`;
    await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await Deno.writeFile(path, bytes);
    hashes[name] = await sha256(bytes);
  }
  const manifest: Manifest = { recipe, facts: bundle.facts, files: hashes };
  // Last, and in one step: a folder without it counts as empty.
  await Deno.writeTextFile(`${folder}/manifest.json.new`, JSON.stringify(manifest, null, 1));
  await Deno.rename(`${folder}/manifest.json.new`, `${folder}/manifest.json`);
}

/** The file that keeps others from filling the cache at the same time. */
async function openLock(cache: string): Promise<Deno.FsFile> {
  try {
    await Deno.mkdir(cache, { recursive: true });
    return await Deno.open(`${cache}/lock`, { create: true, write: true });
  } catch (error) {
    throw new FetchError(`The cache ${cache} cannot be written: ${(error as Error).message}`);
  }
}

/**
 * A bundle from the cache, or made and put there. One process at a time makes it; the others wait.
 *
 * @param architecture Debian's name of the processor that packages are for.
 */
export async function cached(
  name: string,
  recipe: string,
  options: FetchOptions,
  make: (apt: PrivateApt, debs: string, progress: (line: string) => void) => Promise<Bundle>,
  architecture = "i386",
): Promise<Bundle> {
  const cache = options.cache ?? defaultCache();
  const progress = options.progress ?? (() => {});
  const folder = `${cache}/${name}`;
  const found = await readBundle(folder, recipe);
  if (found !== null) return found;
  using lock = await openLock(cache);
  await lock.lock(true);
  const made = await readBundle(folder, recipe);
  if (made !== null) return made;
  const debs = `${cache}/debs-${name}`;
  await Deno.remove(debs, { recursive: true }).catch(() => {});
  const bundle = await make(
    new PrivateApt(
      architecture === "i386" ? `${cache}/apt` : `${cache}/apt-${architecture}`,
      progress,
      architecture,
    ),
    debs,
    progress,
  );
  progress(`storing ${bundle.files.size} files in ${folder}`);
  await writeBundle(folder, recipe, bundle);
  await Deno.remove(debs, { recursive: true }).catch(() => {});
  return bundle;
}

/** A file that a package must have. @throws {FetchError} If it has not. */
export function need(
  files: ReadonlyMap<string, Uint8Array>,
  name: string,
  deb: string,
): Uint8Array {
  const bytes = files.get(name);
  if (bytes === undefined) throw new FetchError(`The Debian package ${deb} has no file ${name}`);
  return bytes;
}

/** Modules by name, with all that they need, and other files out of a kernel's package. */
export async function readModules(
  deb: string,
  names: readonly string[],
  other: (path: string) => boolean,
): Promise<{ modules: Map<string, Uint8Array>; others: Map<string, Uint8Array> }> {
  const modules = new Map<string, Uint8Array>();
  const others = new Map<string, Uint8Array>();
  let wanted = new Set(names);
  // What a module needs is known once it is read, so a second pass may be necessary.
  while (wanted.size > 0) {
    const found = await readDeb(
      deb,
      (path) =>
        others.size === 0 && other(path) || path.endsWith(".ko") && wanted.has(moduleName(path)),
    );
    for (const [path, bytes] of found) {
      if (path.endsWith(".ko")) modules.set(moduleName(path), bytes);
      else others.set(path, bytes);
    }
    const missing = missingModules(modules).filter((name) => !wanted.has(name));
    wanted = new Set(missing);
  }
  return { modules, others };
}

async function makeGuest(
  apt: PrivateApt,
  debs: string,
  progress: (line: string) => void,
): Promise<Bundle> {
  const image = await apt.resolve(KERNEL);
  const release = image.replace("linux-image-", "");
  const [imageDeb, busyboxDeb] = await apt.download([image, "busybox-static"], debs);
  progress(`opening ${image}`);
  const kernelPath = `boot/vmlinuz-${release}`;
  const { modules, others } = await readModules(
    imageDeb!,
    MODULES,
    (path) => path === kernelPath,
  );
  const bzImage = need(others, kernelPath, image);
  const busybox = need(
    await readDeb(busyboxDeb!, (path) => path === "bin/busybox"),
    "bin/busybox",
    "busybox-static",
  );
  progress("unpacking the kernel");
  const kernel = await unpackKernel(bzImage);
  const files = new Map([["vmlinuz", bzImage], ["busybox", busybox]]);
  if (kernel !== null) files.set("vmlinux", kernel);
  for (const [name, bytes] of modules) files.set(`modules/${name}.ko`, bytes);
  return { facts: { kernelRelease: release }, files };
}

/**
 * The kernel, its modules and busybox: from the cache, or from Debian.
 *
 * @throws {FetchError} If they cannot be had; the message is one sentence for the user.
 */
export async function fetchGuest(options: FetchOptions = {}): Promise<GuestFiles> {
  const { facts, files } = await cached(
    "linux",
    `${KERNEL} busybox ${MODULES.join(" ")}`,
    options,
    makeGuest,
  );
  const bzImage = files.get("vmlinuz")!;
  const modules = new Map<string, Uint8Array>();
  for (const [name, bytes] of files) {
    if (name.startsWith("modules/")) modules.set(moduleName(name), bytes);
  }
  return {
    kernelRelease: facts.kernelRelease!,
    bzImage,
    kernel: files.get("vmlinux") ?? bzImage,
    busybox: files.get("busybox")!,
    modules,
  };
}

const SEABIOS_FOLDER = "usr/share/seabios";
const GRUB_FOLDER = "usr/lib/grub/i386-pc";

/**
 * SeaBIOS and GRUB: from the cache, or from Debian.
 *
 * @throws {FetchError} If they cannot be had; the message is one sentence for the user.
 */
export async function fetchFirmware(options: FetchOptions = {}): Promise<FirmwareFiles> {
  const { files } = await cached("firmware", "seabios grub-pc-bin", options, async (apt, debs) => {
    const [seabios, grub] = await apt.download(["seabios", "grub-pc-bin"], debs);
    const images = await readDeb(
      seabios!,
      (path) =>
        [`${SEABIOS_FOLDER}/bios-256k.bin`, `${SEABIOS_FOLDER}/vgabios-stdvga.bin`].includes(path),
    );
    const modules = await readDeb(grub!, (path) => path.startsWith(`${GRUB_FOLDER}/`));
    const taken = new Map([
      ["bios", need(images, `${SEABIOS_FOLDER}/bios-256k.bin`, "seabios")],
      ["vgabios", need(images, `${SEABIOS_FOLDER}/vgabios-stdvga.bin`, "seabios")],
    ]);
    need(modules, `${GRUB_FOLDER}/kernel.img`, "grub-pc-bin");
    for (const [path, bytes] of modules) taken.set(`grub/${path.split("/").at(-1)}`, bytes);
    return { facts: {}, files: taken };
  });
  const grub = new Map<string, Uint8Array>();
  for (const [name, bytes] of files) if (name.startsWith("grub/")) grub.set(name.slice(5), bytes);
  return { bios: files.get("bios")!, vgaBios: files.get("vgabios")!, grub };
}

/** Programs of Debian's for the guest that busybox has not, with the libraries that they are linked to, by path. */
export type ProgramFiles = ReadonlyMap<string, Uint8Array>;

const ETHTOOL_FILES: Readonly<Record<string, { deb: string; from: RegExp }>> = {
  "/bin/ethtool": { deb: "ethtool", from: /^s?bin\/ethtool$|^usr\/sbin\/ethtool$/ },
  "/lib/libmnl.so.0": { deb: "libmnl0", from: /\/libmnl\.so\.0\.\d[\d.]*$/ },
  "/lib/libc.so.6": { deb: "libc6", from: /^(usr\/)?lib\/i386-linux-gnu\/libc\.so\.6$/ },
  "/lib/libm.so.6": { deb: "libc6", from: /^(usr\/)?lib\/i386-linux-gnu\/libm\.so\.6$/ },
  "/lib/ld-linux.so.2": {
    deb: "libc6",
    from: /^(usr\/)?lib\/i386-linux-gnu\/ld-linux\.so\.2$/,
  },
};

/**
 * ethtool and its libraries: from the cache, or from Debian.
 *
 * @throws {FetchError} If they cannot be had; the message is one sentence for the user.
 */
export async function fetchEthtool(options: FetchOptions = {}): Promise<ProgramFiles> {
  const wanted = Object.entries(ETHTOOL_FILES);
  const { files } = await cached("ethtool", "ethtool 3", options, async (apt, folder) => {
    const names = [...new Set(wanted.map(([, { deb }]) => deb))];
    const debs = await apt.download(names, folder);
    const taken = new Map<string, Uint8Array>();
    for (const [path, { deb, from }] of wanted) {
      const found = await readDeb(debs[names.indexOf(deb)]!, (name) => from.test(name));
      const bytes = [...found.values()][0];
      if (bytes === undefined) throw new FetchError(`The Debian package ${deb} has no ${path}`);
      taken.set(path.slice(1), bytes);
    }
    return { facts: {}, files: taken };
  });
  return new Map([...files].map(([path, bytes]) => [`/${path}`, bytes]));
}

/**
 * iPXE with all its drivers, in the form that boot loaders take for a kernel: from the cache, or from Debian.
 *
 * @throws {FetchError} If it cannot be had; the message is one sentence for the user.
 */
export async function fetchIpxe(options: FetchOptions = {}): Promise<Uint8Array> {
  const { files } = await cached("ipxe", "ipxe 1", options, async (apt, debs) => {
    const [deb] = await apt.download(["ipxe"], debs);
    const name = "ipxe.lkrn";
    const found = await readDeb(deb!, (path) => path.endsWith(`/${name}`));
    const files = new Map([...found.values()].map((bytes) => [name, bytes]));
    return { facts: {}, files: new Map([[name, need(files, name, "ipxe")]]) };
  });
  return files.get("ipxe.lkrn")!;
}
