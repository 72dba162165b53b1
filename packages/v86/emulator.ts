/** Starts v86 with what this machine needs of it, and without what it brings itself. */
import { V86 } from "v86";
import type { V86AdapterOptions } from "./adapter_types.ts";
import { BOOT_ORDER_DISK_FIRST, type Emulator } from "./internals.ts";
import { loadWasm } from "./wasm.ts";

/**
 * Makes an emulator that does not run yet.
 *
 * @throws {Error} If the WebAssembly module cannot be loaded or started.
 */
export async function makeEmulator(options: V86AdapterOptions): Promise<Emulator> {
  const module = await loadWasm(options.wasm);
  const image = (bytes: Uint8Array | undefined): { buffer: ArrayBuffer } | undefined =>
    bytes === undefined ? undefined : { buffer: bytes.slice().buffer };
  return await new Promise<Emulator>((resolve, reject) => {
    const made = new V86({
      wasm_fn: async (imports: WebAssembly.Imports) => {
        try {
          return (await WebAssembly.instantiate(module, imports)).exports;
        } catch (error) {
          reject(error);
          return await new Promise(() => {}); // v86 would go on with a half-made machine
        }
      },
      autostart: false,
      memory_size: options.memorySize,
      acpi: true,
      bios: image(options.bios),
      vga_bios: image(options.vgaBios),
      hda: options.ideDisk === undefined ? undefined : { buffer: options.ideDisk },
      disable_keyboard: true,
      disable_mouse: true,
      disable_speaker: true,
      net_device: { type: options.rivals?.net ? "virtio" : "none" },
      virtio_console: options.rivals?.console ?? false,
      boot_order: BOOT_ORDER_DISK_FIRST,
      // deno-lint-ignore no-explicit-any -- the published types lack half of these
    } as any) as unknown as Emulator;
    made.add_listener("emulator-loaded", () => resolve(made));
  });
}
