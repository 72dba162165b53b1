/** One booted Linux for all guest tests of a file: booted once, saved, and restored for each test. */
import { fetchGuest } from "../../examples/guest/fetch.ts";
import { Guest } from "../../examples/guest/guest.ts";
import { buildInitrd } from "../../examples/guest/initrd.ts";
import type { V86MachineState } from "@virtio/v86";

let booted: Promise<V86MachineState> | null = null;

async function boot(): Promise<V86MachineState> {
  const files = await fetchGuest();
  const guest = await Guest.boot({
    kernel: files.kernel,
    initrd: buildInitrd(files),
    bootTimeout: 180_000,
  });
  const state = await guest.saveState();
  await guest.destroy();
  return state;
}

/** A Linux that has just booted and has loaded no driver yet. */
export async function bootedGuest(): Promise<Guest> {
  booted ??= boot();
  return await Guest.restore(await booted);
}

/** Whether a Linux can be had here. Where it cannot, tests are skipped, which CI takes for a failure. */
export async function canBoot(): Promise<boolean> {
  try {
    await fetchGuest();
    return true;
  } catch (error) {
    console.error(`SKIPPED: no guest: ${(error as Error).message}`);
    return false;
  }
}
