/** iPXE, which shares nothing with Linux, boots from our network: address and file by DHCP, names, a script by HTTP through NAT. */
import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { NetDevice } from "@virtio/net";
import { V86Machine } from "@virtio/v86";
import { Virbr } from "@virtio/virbr";
import { denoOutside } from "@virtio/virbr/outside/deno";
import { buildGrubDisk } from "../../examples/guest/grub.ts";
import { firmwareFiles, ipxeFile } from "../../examples/guest/testing.ts";
import { attach, type Seat } from "../../examples/shared/seat.ts";

const firmware = await firmwareFiles();
const ipxe = await ipxeFile();
const ignore = firmware === null || ipxe === null;

const PCI: Seat = { transport: "pci", bar: "memory", interrupt: "intx", ring: "split" };
const MAC = "52:54:00:00:03:01";

Deno.test({
  name: "iPXE gets its address and what to boot from our network, and finds the host by name",
  ignore,
  fn: async () => {
    const done = Promise.withResolvers<void>();
    const asked: string[] = [];
    const server: Deno.HttpServer<Deno.NetAddr> = Deno.serve({
      hostname: "127.0.0.1",
      port: 0,
      onListen() {},
    }, (request) => {
      const path = decodeURIComponent(new URL(request.url).pathname);
      asked.push(path);
      if (path.startsWith("/done/")) done.resolve();
      return new Response(
        path === "/first.ipxe" ? `#!ipxe\nchain ${host}/second.ipxe\n` : second,
      );
    });
    const host = `http://gateway.internal:${server.addr.port}`;
    // Long enough for many segments; the last line counts.
    const second = `#!ipxe\n${"# a comment that does nothing but take room\n".repeat(3000)}` +
      `imgfetch ${host}/done/\${net0/mac}/\${net0/ip}/\${net0/domain}\n`;
    const net = new Virbr({
      outside: { ...denoOutside(), networks: () => [] },
      hostLoopback: true,
      leases: [{ mac: MAC, address: "192.168.122.42", name: "netboot" }],
      boot: { file: `http://192.168.122.1:${server.addr.port}/first.ipxe` },
    });
    const machine = await V86Machine.create({
      firmware: { bios: firmware!.bios, vgaBios: firmware!.vgaBios },
      onStopped: (reason) => done.reject(new Error(`The machine stopped: ${reason}`)),
    });
    const timer = setTimeout(
      () => done.reject(new Error(`iPXE asked for no more than ${asked.join(", ")}`)),
      180_000,
    );
    try {
      const image = buildGrubDisk({
        grub: firmware!.grub,
        kernel: ipxe!,
        commandLine: "",
        realMode: true,
      });
      attach(machine, PCI, new BlkDevice({ backend: new MemoryBackend(image) }));
      const port = net.port({ name: "ipxe" });
      const { errors } = attach(machine, PCI, new NetDevice({ backend: port, mac: MAC }), 1);
      machine.run();
      await done.promise;
      assertEquals(errors, []);
      assertEquals(asked, [
        ...["/first.ipxe", "/second.ipxe"],
        `/done/${MAC}/192.168.122.42/internal`,
      ]);
      assertEquals(net.leases.map(({ address, name }) => [address, name]), [
        ["192.168.122.42", "netboot"],
      ]);
      const { gateway, dns, dhcp } = net.stats;
      assertEquals([gateway.malformed, gateway.checksum, dns.malformed], [0, 0, 0]);
      assert(dhcp.messages.discover >= 1 && dhcp.messages.ack >= 1 && dns.local >= 1);
    } finally {
      clearTimeout(timer);
      await machine.destroy();
      await net.close();
      await server.shutdown();
    }
  },
});
