/** A console of one port tells Linux its size from the first moment, and again when it changes. */
import { ConsoleDevice } from "@virtio/console";
import { MemoryConsole } from "@virtio/console/memory";
import { assertEquals } from "@std/assert";
import { guestFiles, restoreGuest } from "../../examples/guest/testing.ts";
import { attach } from "../../examples/shared/seat.ts";

Deno.test({
  name: "Linux knows the size of a console without multiport before it changes",
  ignore: await guestFiles() === null,
  fn: async () => {
    const device = new ConsoleDevice({
      ports: [{ backend: new MemoryConsole(), size: { cols: 101, rows: 33 } }],
      size: { cols: 101, rows: 33 },
      multiport: false,
    });
    const guest = await restoreGuest();
    try {
      const seat = { transport: "pci", bar: "memory", interrupt: "msix", ring: "split" } as const;
      attach(guest.machine, seat, device);
      await guest.rescanPci();
      await guest.check("modprobe -a virtio_pci virtio_console");
      const size = (wanted: string) =>
        guest.check(
          `for i in $(seq 30); do stty size </dev/hvc0 | grep -q '${wanted}' && break; sleep 0.1; done; stty size </dev/hvc0`,
        );
      assertEquals(await size("33 101"), "33 101");
      device.port(0)!.resize(90, 20);
      assertEquals(await size("20 90"), "20 90");
    } finally {
      await guest.destroy();
    }
  },
});
