/** iPXE, which shares nothing with Linux, drives our network card: DHCP, TFTP, HTTP, scripts. */
import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { V86Machine } from "@virtio/v86";
import { buildGrubDisk } from "../../examples/guest/grub.ts";
import { firmwareFiles, ipxeFile } from "../../examples/guest/testing.ts";
import { serveHttp } from "../../examples/net/host/http.ts";
import { stationOn } from "../../examples/net/host/station.ts";
import { attach, type Seat } from "../../examples/shared/seat.ts";
import { type Asked, serveDhcp, serveTftp } from "./boot_server.ts";

const firmware = await firmwareFiles();
const ipxe = await ipxeFile();
const ignore = firmware === null || ipxe === null;

const HOST_IP = "10.0.0.254";
const encoder = new TextEncoder();

/** Files that notice when they are asked for. */
class Watched extends Map<string, Uint8Array> {
  readonly #asked: (path: string) => void;

  constructor(files: [string, Uint8Array][], asked: (path: string) => void) {
    super(files);
    this.#asked = asked;
  }

  override get(path: string): Uint8Array | undefined {
    this.#asked(path);
    return super.get(path);
  }
}

const PCI_DISK: Seat = { transport: "pci", bar: "memory", interrupt: "intx", ring: "split" };
const PCI = { transport: "pci", bar: "memory", interrupt: "intx" } as const;
for (
  const [name, seat] of [
    ["split ring", { ...PCI, ring: "split" }],
    ["I/O BAR", { ...PCI, bar: "io", ring: "split" }],
    // It takes no packed rings, and finds that out by itself.
    ["packed ring offered", { ...PCI, ring: "packed" }],
  ] as readonly (readonly [string, Seat])[]
) {
  Deno.test({
    name: `iPXE boots a script from the network over our card, ${name}`,
    ignore,
    fn: async () => {
      const network = new Switch();
      const host = stationOn(network.port({ name: "host" }), {
        mac: new Uint8Array([2, 0, 0, 0, 0, 0xfe]),
        ip: HOST_IP,
      });
      const asked: Asked = [];
      const done = Promise.withResolvers<void>();
      const script = `#!ipxe\necho the first script\nchain http://${HOST_IP}/second.ipxe\n`;
      // Long enough for many segments; its last line is what counts.
      const second = `#!ipxe\n${"# a comment that does nothing but take room\n".repeat(3000)}` +
        `imgfetch http://${HOST_IP}/done/\${net0/mac}/\${net0/ip}\n`;
      serveDhcp(host, "10.0.0.50", "boot.ipxe", asked);
      serveTftp(host, new Map([["boot.ipxe", encoder.encode(script)]]), asked);
      serveHttp(
        host,
        new Watched([["/second.ipxe", encoder.encode(second)]], (path) => {
          asked.push(`http ${decodeURIComponent(path)}`);
          if (path.startsWith("/done/")) done.resolve();
        }),
      );

      const stopped = Promise.withResolvers<never>();
      const machine = await V86Machine.create({
        firmware: { bios: firmware!.bios, vgaBios: firmware!.vgaBios },
        onStopped: (reason) => stopped.reject(new Error(`The machine stopped: ${reason}`)),
      });
      let timer: ReturnType<typeof setTimeout> | undefined;
      try {
        const image = buildGrubDisk({
          grub: firmware!.grub,
          kernel: ipxe!,
          commandLine: "",
          realMode: true,
        });
        attach(machine, PCI_DISK, new BlkDevice({ backend: new MemoryBackend(image) }));
        const card = new NetDevice({
          backend: network.port({ name: "guest" }),
          mac: "02:00:00:00:00:01",
        });
        const { errors } = attach(machine, seat, card, 1);
        machine.run();
        await Promise.race([
          done.promise,
          stopped.promise,
          new Promise((_, reject) => {
            timer = setTimeout(
              () => reject(new Error(`iPXE asked for no more than ${asked.join(", ")}`)),
              180_000,
            );
          }),
        ]);
        assertEquals(errors, []);
        assertEquals(asked.filter((one) => !one.startsWith("discover")), [
          ...["request 02:00:00:00:00:01", "tftp boot.ipxe", "http /second.ipxe"],
          "http /done/02:00:00:00:00:01/10.0.0.50",
        ]);
        assert(asked[0] === "discover 02:00:00:00:00:01");
        assertEquals([card.stats.dropped, host.damaged], [0, 0]);
      } finally {
        clearTimeout(timer);
        await machine.destroy();
        host.close();
        network.close();
      }
    },
  });
}
