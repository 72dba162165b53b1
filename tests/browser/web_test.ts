/** The page of example:web: Linux boots on our disk, console and network; the disk stays; two tabs are two guests. */
import { assert, assertEquals } from "@std/assert";
import type { Page } from "playwright-core";
import { guestFiles } from "../../examples/guest/testing.ts";
import { buildSite, type Site } from "../../examples/web/site.ts";
import { executable, type Files, withPage } from "./page.ts";

const ignore = executable === null || await guestFiles() === null;
const BOOT = 150_000;

function asFiles(site: Site): Files {
  return Object.fromEntries(
    [...site].map(([name, bytes]) => [name === "index.html" ? "/" : `/${name}`, bytes]),
  );
}

/** What the terminal shows, and what is typed into it. */
class Screen {
  readonly #page: Page;

  constructor(page: Page) {
    this.#page = page;
  }

  /** Waits until the terminal shows a text. */
  async shows(text: string, timeout = 30_000): Promise<void> {
    try {
      await this.#page.waitForFunction(
        `document.querySelector("#terminal .xterm-rows").textContent.replaceAll("\\u00a0", " ")
          .includes(${JSON.stringify(text)})`,
        undefined,
        { timeout },
      );
    } catch {
      const shown = await this.#page.innerText("#terminal .xterm-rows");
      throw new Error(`The terminal does not show ${JSON.stringify(text)}, but:\n${shown}`);
    }
  }

  async type(text: string): Promise<void> {
    await this.#page.keyboard.type(text);
  }

  async logIn(): Promise<void> {
    await this.shows("login:", BOOT);
    await this.type("root\n");
    await this.shows("# ");
  }
}

/** The number before the rate in a field of the disk's queue. */
async function diskField(page: Page, key: string): Promise<number> {
  const text = await page.locator(`section[aria-label="requests"] dd[data-key="${key}"]`)
    .innerText();
  return Number(text.split(" ")[0]!.replaceAll(",", ""));
}

/** The device table's count, which comes another way: from the device's own counters. */
async function diskChains(page: Page): Promise<number> {
  return Number(await page.getAttribute("#devices tr:nth-child(2)", "data-chains"));
}

/** From the terminal to the disk's slots, along them, and back. */
async function withKeysAlone(page: Page): Promise<void> {
  const explained = () => page.locator("virtio-rings .explain b").innerText();
  const press = async (...keys: readonly string[]) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  await page.click("#terminal");
  await press("F6");
  assertEquals(await page.evaluate("document.activeElement.id"), "show-rings");
  // Pause, Step, the slots.
  await press("Tab", "Tab", "Tab");
  assert((await explained()).startsWith("descriptor 0, "));
  await press("ArrowRight", "ArrowRight", "ArrowDown");
  assert((await explained()).startsWith("descriptor 66, "), await explained());
  await press("ArrowUp", "ArrowUp", "ArrowLeft");
  assert((await explained()).startsWith("descriptor 0, "), await explained());
  await press("End");
  assert((await explained()).startsWith("descriptor 255, "), await explained());
  await press("Tab");
  assert(!(await explained()).startsWith("descriptor"), "a field's name");
  await press("F6");
  assertEquals(await page.evaluate("document.activeElement.className"), "xterm-helper-textarea");
}

Deno.test({
  name: "the rings are shown as they are; a queue is paused, goes on chain by chain, and is let go",
  ignore,
  fn: async () => {
    const site = await buildSite({ step: () => {}, detail: () => {} });
    await withPage(asFiles(site), async ({ page, complaints }) => {
      await page.setViewportSize({ width: 1280, height: 800 });
      const screen = new Screen(page);
      await screen.logIn();
      await screen.type(
        "dd if=/dev/zero of=/root/zeroes bs=4k count=100 conv=fsync; echo d''one\n",
      );
      await screen.shows("done");
      await page.waitForTimeout(1200);
      const chains = await diskField(page, "chains");
      assert(chains > 0);
      assertEquals(chains, await diskChains(page));
      const queue = page.locator('section[aria-label="requests"]');
      await queue.getByRole("button", { name: "Pause" }).click();
      await page.click("#terminal");
      // Without the page cache each read of 4 KiB is a request.
      await screen.type("echo 3 >/proc/sys/vm/drop_caches; md5sum /root/zeroes; echo wa''s read\n");
      await page.waitForTimeout(1500);
      assertEquals(await diskField(page, "chains"), chains);
      assert((await queue.locator("canvas").getAttribute("aria-label"))!.includes("available"));
      for (let step = 1; step <= 2; step++) {
        await queue.getByRole("button", { name: "Step" }).click();
        await page.waitForTimeout(600);
        assertEquals(await diskField(page, "chains"), chains + step);
      }
      await queue.locator("dt").first().hover();
      const explanation = await page.locator("virtio-rings .explain").innerText();
      assert(/virtio 1\.4, 2\.8\.1/.test(explanation), explanation);
      await withKeysAlone(page);
      await Deno.mkdir(new URL("../../.cache/pictures/", import.meta.url), { recursive: true });
      for (const scheme of ["light", "dark"] as const) {
        await page.emulateMedia({ colorScheme: scheme });
        await page.waitForTimeout(400);
        const path = new URL(`../../.cache/pictures/web-${scheme}.png`, import.meta.url).pathname;
        await page.screenshot({ path });
      }
      await queue.getByRole("button", { name: "Continue" }).click();
      await screen.shows("was read");
      await page.click("#show-rings");
      assertEquals(await page.locator("virtio-rings").isVisible(), false);
      // It fits on a narrow window.
      await page.setViewportSize({ width: 420, height: 800 });
      assertEquals(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
      assertEquals(complaints, []);
    });
  },
});

Deno.test({
  name: "the page boots Linux, keeps its disk over a reload, and two tabs ping each other",
  ignore,
  fn: async () => {
    const site = await buildSite({ step: () => {}, detail: () => {} });
    await withPage(asFiles(site), async ({ page, context, origin, complaints }) => {
      const first = new Screen(page);
      await first.logIn();
      assertEquals(await page.textContent("#guest"), "guest-1");
      await first.type("echo written-$((6*7)) >/root/note; sync; echo syn''ced\n");
      await first.shows("synced");
      // The terminal is as wide as the guest believes.
      await first.type("stty size\n");
      const size = await page.evaluate("[document.querySelector('.xterm-rows').childElementCount]");
      await first.shows(`${(size as number[])[0]} `);
      await page.reload();
      await first.logIn();
      await first.type("cat /root/note\n");
      await first.shows("written-42");

      const other = await context.newPage();
      await other.goto(`${origin}/`);
      const second = new Screen(other);
      await second.logIn();
      assertEquals(await other.textContent("#guest"), "guest-2");
      await second.type("ping -c 3 guest-1\n");
      await second.shows("3 packets transmitted, 3 packets received", 60_000);
      const sent = await other.getAttribute("#devices tr:nth-child(3)", "data-chains");
      assert(Number(sent) > 0, `the network's row says ${sent}`);
      await other.click("#network");
      await second.type("cat /sys/class/net/eth0/carrier\n");
      await second.shows("0guest-2:");
      assertEquals(complaints, []);
    });
  },
});
