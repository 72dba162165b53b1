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
