/** example:vhost-user as its user meets it, with User Mode Linux and with QEMU. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { runExample } from "./testing.ts";
import { qemuWorld, umlWorld } from "../guests/vhost_user_work.ts";

interface Figures {
  readonly devices: readonly {
    readonly name: string;
    readonly requests: number;
    readonly interrupts: number;
  }[];
}

Deno.test("example:vhost-user --help says what there is, and ends with 0", async () => {
  const { code, out, err } = await runExample("vhost_user", ["--help"]);
  assertEquals([code, err], [0, ""]);
  for (const word of ["--vm uml|qemu", "--ring split|packed", "--json"]) {
    assertStringIncludes(out, word);
  }
});

for (
  const [args, says] of [
    [["--vm", "xen"], "uml or qemu"],
    [["--megabytes", "0"], "1 to 64"],
    [["--transport", "pci"], "--transport"],
  ] as const
) {
  Deno.test(`example:vhost-user ${args.join(" ")} is refused in one sentence`, async () => {
    const { code, out, err } = await runExample("vhost_user", args);
    assertEquals([code, out], [2, ""]);
    assertMatch(err, /^example:vhost-user: [^\n]+\n$/);
    assertStringIncludes(err, says);
  });
}

Deno.test("example:vhost-user says it where no User Mode Linux can be had", async () => {
  const cache = await Deno.makeTempDir();
  try {
    const { code, err } = await runExample("vhost_user", [], {
      env: { PATH: "/nowhere", VIRTIO_GUEST_CACHE: cache },
    });
    assertEquals(code, 1);
    assertMatch(err, /^example:vhost-user: [^\n]+\n$/);
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
});

for (
  const [vm, ring, third, ignore] of [
    ["uml", "split", "console", await umlWorld() === null],
    ["qemu", "packed", "entropy", await qemuWorld() === null],
  ] as const
) {
  Deno.test({
    name: `example:vhost-user --vm ${vm} --ring ${ring} boots a Linux that its devices serve`,
    ignore,
    async fn() {
      const { code, out, err } = await runExample("vhost_user", [
        ...["--vm", vm, "--ring", ring, "--megabytes", "4", "--json"],
      ]);
      assertEquals([code, err], [0, ""], out);
      assertStringIncludes(out, "The devices work");
      const { ok, figures } = JSON.parse(out.trimEnd().split("\n").at(-1)!) as {
        ok: boolean;
        figures: Figures;
      };
      assert(ok);
      assertEquals(figures.devices.map(({ name }) => name), ["disk", "network", third]);
      assert(figures.devices.every(({ requests, interrupts }) => requests > 0 && interrupts > 0));
    },
  });
}
