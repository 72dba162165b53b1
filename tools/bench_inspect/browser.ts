/** What it costs the guest of example:web that its rings are shown: reads of its disk, shown, hidden, and without the element. */
import type { Page } from "playwright-core";
import { buildSite } from "../../examples/web/site.ts";
import { executable, withPage } from "../../tests/browser/page.ts";

/** Milliseconds of one block, and until a change of what is shown has settled. */
const BLOCK = 1000;
const SETTLE = 300;
const BOOT = 150_000;

/** In the order of a round; every second round goes backwards, so that a drift of the machine's speed falls on all. */
const STATES = ["shown", "hidden", "absent"] as const;
type State = typeof STATES[number];

/** What runs in the page. */
const IN_PAGE = `
  const rings = document.getElementById("rings");
  const button = document.getElementById("show-rings");
  const place = document.createComment("");
  const disk = () => document.querySelector("#devices tr:nth-child(2)");
  /** The next figures of the machine's. */
  const figures = () => new Promise((resolve) => {
    const observer = new MutationObserver(() => {
      observer.disconnect();
      resolve({ at: performance.now(), chains: Number(disk().dataset.chains) });
    });
    observer.observe(disk(), { attributes: true, attributeFilter: ["data-chains"] });
  });
  globalThis.block = async (state, milliseconds, settle) => {
    if (!rings.isConnected) place.replaceWith(rings);
    if (rings.hidden === (state === "shown")) button.click();
    if (state === "absent") rings.replaceWith(place);
    await new Promise((resolve) => setTimeout(resolve, settle));
    const before = await figures();
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    const after = await figures();
    return (after.chains - before.chains) / (after.at - before.at) * 1000;
  };
`;

async function shows(page: Page, text: string, timeout: number): Promise<void> {
  await page.waitForFunction(
    `document.querySelector("#terminal .xterm-rows").textContent.includes(${JSON.stringify(text)})`,
    undefined,
    { timeout },
  );
}

/** Boots the guest, has it read its disk without end, and prints what showing the rings costs. */
export async function benchBrowser(rounds: number): Promise<void> {
  if (executable === null) throw new Error("There is no Chromium");
  const site = await buildSite({ step: () => {}, detail: () => {} });
  const files = Object.fromEntries(
    [...site].map(([name, bytes]) => [name === "index.html" ? "/" : `/${name}`, bytes]),
  );
  await withPage(files, async ({ page }) => {
    await page.setViewportSize({ width: 1280, height: 800 });
    await shows(page, "login:", BOOT);
    await page.keyboard.type("root\n");
    await shows(page, "# ", BOOT);
    await page.keyboard.type(
      "while :; do dd if=/dev/vda of=/dev/null bs=4k count=4096 iflag=direct 2>/dev/null; done\n",
    );
    await page.evaluate(IN_PAGE);
    const session = await page.context().newCDPSession(page);
    // The processor's time, so that it says the same on a busy machine.
    await session.send("Performance.enable", { timeDomain: "threadTicks" });
    const worked = async (): Promise<number> => {
      const { metrics } = await session.send("Performance.getMetrics");
      return metrics.find(({ name }) => name === "TaskDuration")!.value;
    };
    const busy = new Map<State, number[]>(STATES.map((state) => [state, []]));
    const block = async (state: State): Promise<number> => {
      const [before, start] = [await worked(), performance.now()];
      const rate = await page.evaluate(`block("${state}", ${BLOCK}, ${SETTLE})`) as number;
      const seconds = (performance.now() - start) / 1000;
      busy.get(state)!.push((await worked() - before) / seconds);
      return rate;
    };
    for (const state of STATES) await block(state);
    const rates = new Map<State, number[]>(STATES.map((state) => [state, []]));
    for (let round = 0; round < rounds; round++) {
      const order = round % 2 === 0 ? STATES : STATES.toReversed();
      for (const state of order) rates.get(state)!.push(await block(state));
    }
    const absent = rates.get("absent")!;
    for (const state of ["shown", "hidden"] as const) {
      const own = rates.get(state)!;
      const ratios = own.map((rate, round) => rate / absent[round]!).sort((a, b) => a - b);
      const at = (part: number): string =>
        `${((1 - ratios[Math.round(part * (ratios.length - 1))]!) * 100).toFixed(1)}%`;
      console.log(
        `${state} in Chromium: costs ${at(0.5)} of the guest's reads (${at(0.9)} to ${at(0.1)}): ` +
          `${median(own)} against ${median(absent)} requests a second without the element`,
      );
    }
    const times = STATES.map((state) => {
      const sorted = busy.get(state)!.toSorted((a, b) => a - b);
      return `${(100 * sorted[sorted.length >> 1]!).toFixed(1)}% ${state}`;
    });
    console.log(`the page's own thread works ${times.join(", ")}`);
  });
}

function median(values: readonly number[]): string {
  return Math.round(values.toSorted((a, b) => a - b)[values.length >> 1]!).toLocaleString("en");
}
