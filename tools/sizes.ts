/** Prints what each package weighs in a browser: `deno task sizes`. Minified and gzipped, with the packages that it needs. */
import { bundleSize, endBundling } from "./bundle.ts";

/** The entry points that run in browsers. */
export const ENTRIES: readonly string[] = [
  ...["memory", "vring", "vring/driver", "device", "transport/mmio", "transport/pci"],
  ...["blk", "blk/driver", "net", "net/driver", "console", "console/driver"],
  ...["worker", "worker/serve", "inspect", "inspect/element", "virbr", "v86"],
];

if (import.meta.main) {
  if (Deno.args.includes("--help")) {
    console.log(
      "Prints what each package weighs in a browser, minified and gzipped. It has no options.",
    );
    Deno.exit(0);
  }
  const kib = (bytes: number): string => (bytes / 1024).toFixed(1).padStart(7);
  console.log("                          minified  gzipped (KiB, with the packages that it needs)");
  for (const entry of ENTRIES) {
    const { minified, gzipped } = await bundleSize(`@virtio/${entry}`);
    console.log(`@virtio/${entry.padEnd(18)} ${kib(minified)}  ${kib(gzipped)}`);
  }
  await endBundling();
}
