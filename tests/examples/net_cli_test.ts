/** example:net as its user meets it: what it prints, its exit status, and a capture that tshark reads. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
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
  cards: {
    name: string;
    framesSent: number;
    framesReceived: number;
    bytesReceived: number;
    kicks: number;
    interrupts: number;
  }[];
}

testHelp("net", ["--transport", "--ring", "--pcap FILE", "--megabytes", "--mtu"]);

testRefused("net", [
  [["--frobnicate"], "--frobnicate"],
  [["--guest", "windows"], "linux or ts"],
  [["--megabytes", "65"], "1 to 64"],
  [["--mtu", "100"], "576 to 9000"],
  [["--pcap"], "needs a value"],
  [["--transport", "mmio", "--bar", "io"], "--transport pci"],
  [["--guest", "ts", "--kernel", "x"], "--guest linux"],
]);

Deno.test("example:net says that the capture cannot be written", async () => {
  const { code, err } = await runExample("net", ["--guest", "ts", "--pcap", "/nowhere/c.pcapng"]);
  assertEquals(code, 1);
  assertOneSentence("net", err);
  assertStringIncludes(err, "/nowhere/c.pcapng");
});

for (const transport of ["pci", "mmio"]) {
  for (const ring of ["split", "packed"]) {
    Deno.test(`example:net --guest ts over ${transport}, ${ring} ring: figures as JSON`, async () => {
      const { code, out, err } = await runExample("net", [
        ...["--guest", "ts", "--json", "--transport", transport, "--ring", ring],
        ...["--megabytes", "2", "--mtu", ring === "split" ? "9000" : "1500"],
      ]);
      assertEquals([code, err], [0, ""]);
      const { ok, figures: { cards } } = lastLine<Figures>(out);
      assertEquals(ok, true);
      assertEquals(cards.map(({ name }) => name), ["guest 1", "guest 2"]);
      // It fetches two files of 2 MiB.
      assert(cards[1]!.bytesReceived > 4 * 2 ** 20);
      for (const card of cards) assert(card.kicks > 0 && card.interrupts > 0);
    });
  }
}

testWithoutKernel("net");

async function captured(args: readonly string[]): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".pcapng" });
  try {
    const { code, out, err } = await runExample("net", ["--json", "--pcap", path, ...args]);
    assertEquals([code, err], [0, ""]);
    const { cards } = lastLine<Figures>(out).figures;
    const count = async (filter: string): Promise<number> =>
      (await tshark(path, ["-Y", filter])).length;
    for (const { name, framesSent, framesReceived } of cards) {
      const frames = await count(`frame.interface_name == "${name}"`);
      assertEquals(frames, framesSent + framesReceived, name);
    }
    // Guest 2 asks guest 1, the host asks guest 1, and both guests ask the host.
    const requests = await tshark(path, [
      ...["-Y", 'tcp contains "GET /file"', "-T", "fields"],
      ...["-e", "frame.interface_name", "-e", "tcp.stream"],
    ]);
    // On a busy machine a request may be sent twice.
    const asked = [...new Set(requests)].map((line) => line.split("\t")[0]!);
    assertEquals(asked.sort(), ["guest 1", "guest 1", "guest 1", "guest 2", "guest 2"]);
    assertEquals(await count("tcp.flags.reset == 1"), 0);
    assert(await count("icmp.type == 8 && ip.dst == 10.0.0.254") > 0);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test({
  name: "example:net --pcap writes what tshark reads, with the card of each frame",
  ignore: !hasTshark,
  fn: () => captured(["--guest", "ts", "--megabytes", "1"]),
});

Deno.test({
  name: "example:net has two Linux guests talk, and captures it",
  ignore: !hasTshark || await guestFiles() === null,
  fn: () => captured(["--megabytes", "1", "--transport", "mmio", "--ring", "packed"]),
});
