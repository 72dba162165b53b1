/** example:virbr as its user meets it: what it prints, its exit status, and a capture that tshark reads. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import { hasTshark, tshark } from "../guests/tshark.ts";
import {
  assertOneSentence,
  lastLine,
  runExample,
  testHelp,
  testRefused,
  testWithoutKernel,
} from "./testing.ts";

interface Figures {
  cards: { name: string; framesSent: number; framesReceived: number; bytesReceived: number }[];
  network: { flows: { total: number; unwanted: number; tcp: number }; dns: { rebinding: number } };
  leases: { name: string; address: string }[];
}

testHelp("virbr", ["--transport", "--ring", "--pcap FILE", "--megabytes", "--mtu"]);

testRefused("virbr", [
  [["--frobnicate"], "--frobnicate"],
  [["--guest", "windows"], "linux or ts"],
  [["--megabytes", "65"], "1 to 64"],
  [["--mtu", "100"], "576 to 9000"],
  [["--pcap"], "needs a value"],
  [["--guest", "ts", "--kernel", "x"], "--guest linux"],
]);

Deno.test("example:virbr says that the capture cannot be written", async () => {
  const { code, err } = await runExample("virbr", ["--guest", "ts", "--pcap", "/nowhere/c.pcapng"]);
  assertEquals(code, 1);
  assertOneSentence("virbr", err);
  assertStringIncludes(err, "/nowhere/c.pcapng");
});

function checkFigures({ cards, network, leases }: Figures, bytes: number): void {
  assertEquals(cards.map(({ name }) => name), ["guest1", "guest2"]);
  for (const card of cards) assert(card.bytesReceived > bytes);
  assertEquals(leases.map(({ name }) => name).sort(), ["guest1", "guest2"]);
  assertEquals(new Set(leases.map(({ address }) => address)).size, 2);
  for (const { address } of leases) assertMatch(address, /^192\.168\.\d+\.\d+$/);
  // Two pages and the forward; the page that is nobody's business.
  assertEquals([network.flows.total, network.flows.tcp], [3, 0]);
  assert(network.flows.unwanted >= 1);
  assert(network.dns.rebinding >= 1);
}

for (
  const more of [
    ["--transport", "pci", "--ring", "split", "--mtu", "1500"],
    ["--transport", "mmio", "--ring", "packed", "--mtu", "9000"],
    ["--ring", "packed", "--in", "worker"],
  ]
) {
  Deno.test(`example:virbr --guest ts ${more.join(" ")}: a picture, and figures as JSON`, async () => {
    const { code, out, err } = await runExample("virbr", [
      ...["--guest", "ts", "--json", "--megabytes", "2", ...more],
    ]);
    assertEquals([code, err], [0, ""]);
    const { ok, guest, figures } = lastLine<Figures>(out);
    assertEquals([ok, guest], [true, "ts"]);
    checkFigures(figures, 2 * 2 ** 20);
    assertMatch(out, /^ +guest1 +52:54:00:00:00:01 +192\.168\.\d+\.2 +lease \d+ min .*sent/m);
    assertMatch(out, /^ +tcp 127\.0\.0\.1:\d+ leads to 192\.168\.\d+\.2:80$/m);
  });
}

testWithoutKernel("virbr");

async function captured(args: readonly string[]): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".pcapng" });
  try {
    const { code, out, err } = await runExample("virbr", ["--json", "--pcap", path, ...args]);
    assertEquals([code, err], [0, ""]);
    const { figures } = lastLine<Figures>(out);
    checkFigures(figures, 2 ** 20);
    const count = async (filter: string): Promise<number> =>
      (await tshark(path, ["-Y", filter])).length;
    for (const { name, framesSent, framesReceived } of figures.cards) {
      const frames = await count(`frame.interface_name == "${name}"`);
      assertEquals(frames, framesSent + framesReceived, name);
    }
    // Somebody else's dissector understands what our DHCP and DNS say, and finds nothing odd in it.
    assert(await count("dhcp.option.dhcp == 5") >= 2);
    assert(await count("dns.flags.response == 1 && dns.a == 192.0.2.80") >= 1);
    assertEquals(await count("dns.a == 127.0.0.1"), 0);
    assertEquals(await count("_ws.malformed"), 0);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test({
  name: "example:virbr --pcap writes what tshark reads, with the card of each frame",
  ignore: !hasTshark,
  fn: () => captured(["--guest", "ts", "--megabytes", "1"]),
});

Deno.test({
  name: "example:virbr gives two Linux guests addresses, names and a way out, and captures it",
  ignore: !hasTshark || await guestFiles() === null,
  fn: () => captured(["--megabytes", "1", "--transport", "mmio", "--ring", "packed"]),
});
