/** For tests with a real guest: its files, and one booted state that all of them restore. */
import type { V86MachineState } from "@virtio/v86";
import {
  FetchError,
  fetchEthtool,
  fetchFirmware,
  fetchGuest,
  fetchIpxe,
  type FirmwareFiles,
  type GuestFiles,
  type ProgramFiles,
} from "./fetch.ts";
import { Guest, type GuestOptions } from "./guest.ts";
import { buildInitrd } from "./initrd.ts";

/**
 * Whether tests with a real guest can run here. Where they cannot, they are skipped, but not in CI: there a guest that
 * cannot be had is a failure.
 */
async function probe<T>(fetch: () => Promise<T>): Promise<T | null> {
  try {
    return await fetch();
  } catch (error) {
    if (!(error instanceof FetchError) || Deno.env.has("CI")) throw error;
    console.error(`TESTS WITH A REAL GUEST ARE SKIPPED: ${error.message}`);
    return null;
  }
}

let files: Promise<GuestFiles | null> | undefined;
let firmware: Promise<FirmwareFiles | null> | undefined;
let ethtool: Promise<ProgramFiles | null> | undefined;
let ipxe: Promise<Uint8Array | null> | undefined;
let booted: Promise<V86MachineState> | undefined;

/** Kernel, modules and busybox; null where they cannot be had. */
export function guestFiles(): Promise<GuestFiles | null> {
  return files ??= probe(fetchGuest);
}

/** SeaBIOS and GRUB; null where they cannot be had. */
export function firmwareFiles(): Promise<FirmwareFiles | null> {
  return firmware ??= probe(fetchFirmware);
}

/** ethtool for the guest; null where it cannot be had. */
export function ethtoolFiles(): Promise<ProgramFiles | null> {
  return ethtool ??= probe(fetchEthtool);
}

/** iPXE; null where it cannot be had. */
export function ipxeFile(): Promise<Uint8Array | null> {
  return ipxe ??= probe(fetchIpxe);
}

/** Boots a guest from the beginning. */
export async function bootGuest(options: GuestOptions = {}): Promise<Guest> {
  const found = await guestFiles();
  if (found === null) throw new TypeError("There is no guest: look at guestFiles() first");
  return await Guest.boot({ kernel: found.kernel, initrd: buildInitrd(found), ...options });
}

/** A guest in a fraction of a second: without devices and drivers, from a state that is booted once. */
export async function restoreGuest(options: GuestOptions = {}): Promise<Guest> {
  booted ??= (async () => {
    const guest = await bootGuest();
    const state = await guest.saveState();
    await guest.destroy();
    return state;
  })();
  return await Guest.restore(await booted, options);
}
