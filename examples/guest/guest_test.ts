import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { MmioTransport, type SavedMmio } from "@virtio/transport/mmio";
import { PciTransport, type SavedPci } from "@virtio/transport/pci";
import type { V86Machine, V86MachineState } from "@virtio/v86";
import { Guest, GuestError } from "./guest.ts";
import { bootGuest, guestFiles, restoreGuest } from "./testing.ts";

const ignore = await guestFiles() === null;

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ignore, fn });
}

test("a guest runs commands and tells status and output apart, whatever they write", async () => {
  const guest = await restoreGuest();
  assertEquals(await guest.run("echo out; echo err >&2; exit 7"), {
    status: 7,
    output: "out\nerr",
  });
  assertEquals(await guest.run("printf 'no newline'"), { status: 0, output: "no newline" });
  assertEquals(await guest.run("true"), { status: 0, output: "" });
  // The line is given to nobody, and quoting is nobody's problem.
  assertEquals((await guest.run('cat; echo "$((6 * 7)) \'\\t\\""')).output, "42 '\\t\"");
  assertEquals((await guest.run("echo a\necho b\n")).output, "a\nb");
  const { output } = await guest.run("seq 1 20000");
  assertEquals(output, Array.from({ length: 20000 }, (_, i) => `${i + 1}`).join("\n"));
  await assertRejects(() => guest.check("ls /nowhere"), GuestError, "/nowhere");
  await assertRejects(() => guest.run("x".repeat(20000)), RangeError);
  await guest.shutdown();
  await assertRejects(() => guest.run("true"), GuestError, "has stopped (poweroff)");
});

test("a guest that hangs, dies or resets is not waited for", async () => {
  const hanging = await restoreGuest();
  const error = await assertRejects(
    () => hanging.run("echo before; sleep 1000", { timeout: 500 }),
    GuestError,
    "took longer than 0.5 s",
  );
  assertStringIncludes(error.message, "before");
  await assertRejects(() => hanging.run("true"), TypeError, "one command at a time");
  await hanging.destroy();

  const dying = await restoreGuest();
  const panic = await assertRejects(
    () => dying.run("echo c > /proc/sysrq-trigger"),
    GuestError,
    "stopped (reset)",
  );
  assertStringIncludes(panic.message, "Kernel Offset");
  assertEquals(dying.machine.stopReason, "reset");
  await dying.destroy();
});

test("a guest without initrd fails with what the kernel said, and not after a timeout", async () => {
  const empty = new Uint8Array(512);
  const error = await assertRejects(() => bootGuest({ initrd: empty }), GuestError, "stopped");
  assertStringIncludes(error.message, "Unable to mount root fs");
});

/** A disk on PCI and one on MMIO. */
class Disks {
  pci!: PciTransport;
  mmio!: MmioTransport;
  readonly #first: MemoryBackend;
  readonly #second: MemoryBackend;

  constructor(first: MemoryBackend, second: MemoryBackend) {
    this.#first = first;
    this.#second = second;
  }

  attach(machine: V86Machine): void {
    const { memory } = machine;
    const first = new BlkDevice({ backend: this.#first });
    const second = new BlkDevice({ backend: this.#second });
    this.pci = machine.addPci(3, (host) => new PciTransport(first, { memory, host }));
    this.mmio = machine.addMmio(0, (host) => new MmioTransport(second, { memory, host }));
  }
}

test("a guest with mounted disks goes on from a saved state in another machine", async () => {
  const first = new MemoryBackend(16 << 20);
  const second = new MemoryBackend(16 << 20);
  const before = new Disks(first, second);
  const guest = await bootGuest({ attach: (machine) => before.attach(machine) });
  await guest.check(`
    modprobe virtio_pci; modprobe virtio_mmio; modprobe virtio_blk; modprobe ext4
    for disk in a b; do
      mke2fs -q /dev/vd$disk >/dev/null && mkdir /mnt/$disk && mount -t ext4 /dev/vd$disk /mnt/$disk || exit 1
    done
    dd if=/dev/urandom of=/mnt/a/file bs=64k count=32 2>/dev/null
    cp /mnt/a/file /mnt/b/ && sha256sum /mnt/*/file >/tmp/sums && sync`);
  await guest.machine.stop();
  await Promise.all([before.pci.state.pause(), before.mmio.state.pause()]);
  const saved: { machine: V86MachineState; pci: SavedPci; mmio: SavedMmio } = structuredClone({
    machine: await guest.machine.saveState(),
    pci: await before.pci.save(),
    mmio: await before.mmio.save(),
  });
  await guest.destroy();

  const after = new Disks(first, second);
  const again = await Guest.restore(saved.machine, {
    attach: (machine) => after.attach(machine),
    beforeRun: () => {
      after.pci.restore(saved.pci);
      after.mmio.restore(saved.mmio);
      after.pci.state.unpause();
      after.mmio.state.unpause();
    },
  });
  const output = await again.check("echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /tmp/sums");
  assertEquals(output, "/mnt/a/file: OK\n/mnt/b/file: OK");
  await again.check("rm /mnt/*/file && umount /mnt/a /mnt/b");
  await again.shutdown();
});

test("devices sharing interrupt lines lose none of them, over all transports at once", async () => {
  const guest = await restoreGuest();
  const { machine } = guest;
  const { memory } = machine;
  const made: BlkDevice[] = [];
  const disk = (): BlkDevice => {
    const device = new BlkDevice({ backend: new MemoryBackend(8 << 20), id: `${made.length}` });
    made.push(device);
    return device;
  };
  // Slots 2 and 6 share a line.
  machine.addPci(2, (host) => new PciTransport(disk(), { memory, host, msix: false }));
  machine.addPci(
    6,
    (host) => new PciTransport(disk(), { memory, host, msix: false, layout: "io" }),
  );
  machine.addPci(3, (host) => new PciTransport(disk(), { memory, host }));
  machine.addMmio(1, (host) => new MmioTransport(disk(), { memory, host }));
  await guest.rescanPci();
  await guest.check("modprobe virtio_pci; modprobe virtio_mmio; modprobe virtio_blk");
  const lines = await guest.check("grep virtio /proc/interrupts");
  assertStringIncludes(lines, "virtio0, virtio"); // the shared one
  assertStringIncludes(lines, "PCI-MSI");
  // A process that never sleeps keeps interrupts on, so that they arrive in the middle of whatever runs.
  await guest.check(
    `(while :; do :; done) & busy=$!
    for disk in a b c d; do
      dd if=/dev/vd$disk of=/dev/null bs=4k count=1500 iflag=direct 2>/dev/null & all="$all $!"
    done
    for one in $all; do wait $one || exit 1; done; kill $busy`,
    { timeout: 120_000 },
  );
  for (const { stats } of made) assert(stats.reads >= 1500 && stats.errors === 0);
  assertEquals(
    await guest.check("for d in /sys/block/vd*; do echo $(cat $d/serial); done | sort"),
    "0\n1\n2\n3",
  );
  await guest.shutdown();
});
