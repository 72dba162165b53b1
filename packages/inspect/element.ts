/**
 * `<virtio-rings>`: what the rings of devices do, drawn from snapshots. It asks for nothing and owns nothing: whoever has it
 * gives it a snapshot a few times a second while it is seen, and passes its commands on.
 *
 * This module is for pages.
 *
 * ```ts ignore
 * import "@virtio/inspect/element";
 *
 * const rings = document.querySelector("virtio-rings")!;
 * rings.addEventListener("command", ({ detail }) => inspector.command(detail));
 * setInterval(() => { rings.snapshot = inspector.snapshot(); }, 200);
 * ```
 *
 * @module
 */
import { EXPLANATIONS } from "./explain.ts";
import { QueueCard } from "./queue_card.ts";
import type { InspectCommand, QueueView, SlotState, Snapshot } from "./snapshot.ts";
import { STYLE } from "./style.ts";

const STATES: readonly SlotState[] = ["free", "available", "in flight", "used"];
const VARIABLES: Record<SlotState, string> = {
  free: "--vr-free",
  available: "--vr-available",
  "in flight": "--vr-flight",
  used: "--vr-used",
};
const HINT =
  "Point at a slot or a name, or go there with Tab and the arrow keys, to see what it is.";

/** The element. */
export class VirtioRings extends HTMLElement {
  readonly #root: ShadowRoot;
  readonly #body: HTMLElement;
  readonly #explain: HTMLElement;
  readonly #cards: Map<string, QueueCard> = new Map();
  #before: Snapshot | null = null;
  #width = 0;

  /** Made by the browser. */
  constructor() {
    super();
    this.#root = this.attachShadow({ mode: "open" });
    const style = document.createElement("style");
    style.textContent = STYLE;
    const legend = document.createElement("ul");
    legend.className = "legend";
    for (const state of STATES) {
      const item = document.createElement("li");
      const mark = document.createElement("i");
      mark.style.background = `var(${VARIABLES[state]})`;
      item.append(mark, EXPLANATIONS[state]!.name);
      item.title = `${EXPLANATIONS[state]!.text} (virtio 1.4, ${EXPLANATIONS[state]!.clause})`;
      legend.append(item);
    }
    this.#body = document.createElement("div");
    this.#explain = document.createElement("p");
    this.#explain.className = "explain";
    this.#explain.setAttribute("aria-live", "polite");
    this.#explain.textContent = HINT;
    this.#root.append(style, legend, this.#body, this.#explain);
    // To ask for it while it is being filled would have the browser lay it out each time.
    new ResizeObserver(([entry]) => this.#width = entry!.contentRect.width).observe(this);
  }

  /** Shows what was seen last. Null forgets everything. */
  set snapshot(snapshot: Snapshot | null) {
    if (snapshot === null) {
      this.#before = null;
      this.#cards.clear();
      this.#body.replaceChildren();
      return;
    }
    const before = this.#before;
    this.#before = snapshot;
    const seconds = before === null ? 0 : (snapshot.time - before.time) / 1000;
    const styles = getComputedStyle(this);
    const colors = {
      states: Object.fromEntries(
        STATES.map((state) => [state, styles.getPropertyValue(VARIABLES[state])]),
      ) as Record<SlotState, string>,
      mark: styles.color,
    };
    snapshot.devices.forEach(({ name, queues }, device) => {
      queues.forEach((queue) => {
        const old = before?.devices[device]?.queues[queue.index];
        this.#card(device, name, queue).show(
          queue,
          rates(queue, old, seconds),
          colors,
          this.#width,
        );
      });
    });
  }

  #card(device: number, deviceName: string, queue: QueueView): QueueCard {
    const key = `${device}.${queue.index}`;
    const known = this.#cards.get(key);
    if (known !== undefined) return known;
    let section = this.#body.children[device] as HTMLElement | undefined;
    if (section === undefined) {
      section = document.createElement("div");
      const title = document.createElement("h3");
      title.textContent = deviceName;
      section.append(title);
      this.#body.append(section);
    }
    const card = new QueueCard(queue.name, {
      command: (what) => this.#command({ do: what, device, queue: queue.index }),
      explain: (explanation) => this.#tell(explanation),
    });
    this.#cards.set(key, card);
    section.append(card.element);
    return card;
  }

  #command(detail: InspectCommand): void {
    this.dispatchEvent(new CustomEvent("command", { detail }));
  }

  #tell(explanation: { name: string; clause: string; text: string } | null): void {
    if (explanation === null) {
      this.#explain.textContent = HINT;
      return;
    }
    const name = document.createElement("b");
    name.textContent = explanation.name;
    this.#explain.replaceChildren(
      name,
      ` (virtio 1.4, ${explanation.clause}): ${explanation.text}`,
    );
  }
}

function rates(
  now: QueueView,
  before: QueueView | undefined,
  seconds: number,
): { kicks: number; interrupts: number; chains: number } {
  const rate = (key: "kicks" | "interrupts" | "chains"): number =>
    before === undefined || seconds <= 0 ? 0 : (now.counters[key] - before.counters[key]) / seconds;
  return { kicks: rate("kicks"), interrupts: rate("interrupts"), chains: rate("chains") };
}

if (customElements.get("virtio-rings") === undefined) {
  customElements.define("virtio-rings", VirtioRings);
}
