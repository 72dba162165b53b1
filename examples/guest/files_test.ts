import { assertEquals, assertThrows } from "@std/assert";
import { crc32, unxz } from "../../packages/v86/xz.ts";
import { parseSources } from "./apt.ts";
import { readTar } from "./deb.ts";
import { writeFat16 } from "./fat.ts";
import { buildCpio } from "./initrd.ts";
import { lzmaEncode } from "./lzma_encode.ts";
import { missingModules, moduleInfo, moduleTables } from "./modules.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

Deno.test("cpio archives have aligned entries, a trailer, and are the same each time", () => {
  const archive = buildCpio([
    { path: "bin", kind: "directory" },
    { path: "bin/tool", kind: "file", bytes: encode("hello"), mode: 0o755 },
    { path: "bin/sh", kind: "link", target: "tool" },
    { path: "dev/console", kind: "device", major: 5, minor: 1 },
  ]);
  const text = new TextDecoder().decode(archive);
  const entries: Record<string, unknown>[] = [];
  for (let at = 0; at < archive.length;) {
    assertEquals(at % 4, 0);
    assertEquals(text.slice(at, at + 6), "070701");
    const field = (index: number): number => parseInt(text.substr(at + 6 + 8 * index, 8), 16);
    const name = text.substr(at + 110, field(11) - 1);
    const start = Math.ceil((at + 110 + field(11)) / 4) * 4;
    entries.push({
      name,
      mode: field(1).toString(8),
      data: text.substr(start, field(6)),
      device: `${field(9)}:${field(10)}`,
    });
    at = Math.ceil((start + field(6)) / 4) * 4;
  }
  assertEquals(entries, [
    { name: "bin", mode: "40755", data: "", device: "0:0" },
    { name: "bin/tool", mode: "100755", data: "hello", device: "0:0" },
    { name: "bin/sh", mode: "120777", data: "tool", device: "0:0" },
    { name: "dev/console", mode: "20600", data: "", device: "5:1" },
    { name: "TRAILER!!!", mode: "0", data: "", device: "0:0" },
  ]);
});

Deno.test("apt sources of both formats give the Debian archives, and only those", () => {
  const list = `
# deb http://a.example/debian old main
deb [arch=amd64 signed-by=/keys/one.gpg] http://a.example/debian stable main contrib # mine
deb-src http://a.example/debian stable main
deb http://a.example/debian-security stable-security main
deb http://b.example/ubuntu noble main
`;
  const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
  assertEquals(parseSources(list, false), [
    { uri: "http://a.example/debian", suites: ["stable"], signedBy: "/keys/one.gpg" },
    { uri: "http://a.example/debian-security", suites: ["stable-security"], signedBy: keyring },
  ]);
  const sources = `# comment
Types: deb deb-src
URIs: http://a.example/debian/
 http://c.example/other
Suites: stable
 stable-updates
Components: main
Signed-By: /keys/two.gpg

Types: deb
URIs: http://d.example/debian
Suites: sid
Enabled: no

Types: deb-src
URIs: http://d.example/debian
Suites: sid
`;
  assertEquals(parseSources(sources, true), [
    {
      uri: "http://a.example/debian/",
      suites: ["stable", "stable-updates"],
      signedBy: "/keys/two.gpg",
    },
  ]);
});

/** A tar archive of regular files; names beyond 100 characters the GNU way. */
function tar(files: Record<string, string>): ReadableStream<Uint8Array> {
  const parts: Uint8Array[] = [];
  const entry = (name: string, type: string, data: Uint8Array): void => {
    const header = new Uint8Array(512);
    header.set(encode(name.slice(0, 100)));
    header.set(encode(data.length.toString(8).padStart(11, "0")), 124);
    header.set(encode(type), 156);
    parts.push(header, data, new Uint8Array(-data.length & 511));
  };
  for (const [name, data] of Object.entries(files)) {
    if (name.length > 100) entry("././@LongLink", "L", encode(`${name}\0`));
    entry(name, name.endsWith("/") ? "5" : "0", encode(data));
  }
  parts.push(new Uint8Array(1024));
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  // Odd pieces, as a pipe gives them.
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < all.length; at += 333) controller.enqueue(all.slice(at, at + 333));
      controller.close();
    },
  });
}

Deno.test("single files are taken out of a tar archive", async () => {
  const long = `./lib/${"x".repeat(120)}.ko`;
  const stream = tar({
    "./": "",
    "./bin/a": "A".repeat(1000),
    "./bin/b": "B",
    [long]: "long",
    "./c": "",
  });
  const files = await readTar(stream, (path) => path !== "bin/b");
  assertEquals([...files.keys()], ["bin/a", long.slice(2), "c"]);
  assertEquals(files.get("bin/a")!.length, 1000);
  assertEquals(new TextDecoder().decode(files.get(long.slice(2))), "long");
});

Deno.test("modules tell what they need, and modprobe's tables name it all", () => {
  const module = (depends: string, ...aliases: string[]): Uint8Array =>
    encode(
      `\x7fELF\0license=GPL\0${aliases.map((a) => `alias=${a}\0`).join("")}depends=${depends}\0`,
    );
  const modules = new Map([
    ["virtio", module("")],
    ["virtio_ring", module("virtio")],
    ["virtio_blk", module("virtio-ring,virtio", "virtio:d00000002v*")],
    ["ext4", module("jbd2", "fs-ext4", "fs-ext2")],
  ]);
  assertEquals(moduleInfo(modules.get("virtio_blk")!), {
    depends: ["virtio_ring", "virtio"],
    aliases: ["virtio:d00000002v*"],
  });
  assertEquals(missingModules(modules), ["jbd2"]);
  const { dep, alias } = moduleTables(modules);
  assertEquals(dep.split("\n"), [
    "ext4.ko:",
    "virtio.ko:",
    "virtio_blk.ko: virtio_ring.ko virtio.ko",
    "virtio_ring.ko: virtio.ko",
    "",
  ]);
  // What is named first may be what another needs.
  const turned = new Map([
    ["virtio_ring", module("")],
    ["virtio", module("virtio_ring")],
    ["virtio_pci", module("virtio_ring,virtio")],
  ]);
  assertEquals(
    moduleTables(turned).dep.split("\n")[1],
    "virtio_pci.ko: virtio.ko virtio_ring.ko",
  );
  assertEquals(alias.split("\n").slice(0, 2), ["alias fs-ext4 ext4", "alias fs-ext2 ext4"]);
});

Deno.test("what lzmaEncode packs, an LZMA decoder unpacks", () => {
  let x = 7;
  const random = (): number => (x = Math.imul(x, 1103515245) + 12345 >>> 0) >>> 24;
  const inputs = [
    encode("a"),
    encode("abcabcabcabcabcabcabcabcabd".repeat(40)),
    new Uint8Array(5000),
    Uint8Array.from({ length: 20000 }, random),
    Uint8Array.from({ length: 30000 }, (_, i) => i % 700 < 350 ? random() & 3 : i >> 6),
  ];
  for (const input of inputs) {
    const packed = lzmaEncode(input);
    assertEquals(unxz(xzOf(packed, input.length), input.length), input);
  }
});

/** A raw LZMA stream as the only LZMA2 chunk of an .xz file without checks. */
function xzOf(lzma: Uint8Array, size: number): Uint8Array {
  const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => value >>> shift & 0xff);
  const u16be = (value: number): number[] => [value >> 8 & 0xff, value & 0xff];
  const flags = Uint8Array.of(0, 0);
  const header = Uint8Array.of(2, 0, 0x21, 1, 8, 0, 0, 0);
  const body = [
    ...header,
    ...u32(crc32(header)),
    // Control: new dictionary and properties; then sizes less one, and lc 3, lp 0, pb 2.
    ...[0xe0 | size - 1 >> 16, ...u16be(size - 1), ...u16be(lzma.length - 1), 0x5d],
    ...lzma,
    0,
  ];
  while (body.length % 4 !== 0) body.push(0);
  const magic = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0];
  return Uint8Array.from([...magic, ...flags, ...u32(crc32(flags)), ...body, 0]);
}

Deno.test("a FAT16 volume chains its clusters and refuses what does not fit", () => {
  const volume = new Uint8Array(16 << 20);
  const big = Uint8Array.from({ length: 10_000 }, (_, i) => i & 0xff);
  writeFat16(volume, [{ name: "A.TXT", bytes: encode("hi") }, { name: "BIG", bytes: big }], 2048);
  const view = new DataView(volume.buffer);
  const fat = view.getUint16(14, true) * 512;
  const fatSize = view.getUint16(22, true) * 512;
  const root = fat + 2 * fatSize;
  const data = root + view.getUint16(17, true) * 32;
  assertEquals(new TextDecoder().decode(volume.subarray(root, root + 11)), "A       TXT");
  let cluster = view.getUint16(root + 32 + 26, true);
  assertEquals(view.getUint32(root + 32 + 28, true), big.length);
  const read: number[] = [];
  while (cluster < 0xfff8) {
    const at = data + (cluster - 2) * 2048;
    read.push(...volume.subarray(at, at + 2048));
    cluster = view.getUint16(fat + 2 * cluster, true);
  }
  assertEquals(Uint8Array.from(read.slice(0, big.length)), big);
  assertEquals(volume.slice(fat, fat + fatSize), volume.slice(fat + fatSize, root));
  assertThrows(() => writeFat16(new Uint8Array(4 << 20), [], 0), RangeError, "clusters");
  assertThrows(
    () => writeFat16(new Uint8Array(16 << 20), [{ name: "X", bytes: new Uint8Array(17 << 20) }], 0),
    RangeError,
    "does not fit",
  );
  assertThrows(
    () => writeFat16(volume, [{ name: "lower", bytes: big }], 0),
    RangeError,
    "capitals",
  );
});
