/** One queue on the page: made once, then filled again and again. */
import { EXPLANATIONS, flagNames } from "./explain.ts";
import type { QueueView, SlotState, SlotView } from "./snapshot.ts";

/** Cells of a row of slots. */
const COLUMNS = 64;
const CELL = 9;
/** Chains that are named; the rest are counted. */
const NAMED = 6;

/** What a card tells the element. */
export interface CardHost {
  /** A button was pressed. */
  command(what: "hold" | "release" | "step"): void;
  /** Something is to be explained: its name, its clause and what it is; null: nothing any more. */
  explain(text: { name: string; clause: string; text: string } | null): void;
}

/** Rates of a queue's counters, a second. */
export interface Rates {
  /** Kicks. */
  readonly kicks: number;
  /** Interrupts. */
  readonly interrupts: number;
  /** Chains. */
  readonly chains: number;
}

/** A card. */
export class QueueCard {
  /** The element to put into a page. */
  readonly element: HTMLElement;
  readonly #host: CardHost;
  readonly #about: HTMLElement;
  readonly #hold: HTMLButtonElement;
  readonly #step: HTMLButtonElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #list: HTMLDListElement;
  readonly #chains: HTMLElement;
  readonly #values: Map<string, HTMLElement> = new Map();
  #view: QueueView | null = null;

  /** @param name The queue's. */
  constructor(name: string, host: CardHost) {
    this.#host = host;
    const make = <K extends keyof HTMLElementTagNameMap>(
      tag: K,
      parent: HTMLElement,
      text = "",
    ) => {
      const element = document.createElement(tag);
      if (text !== "") element.textContent = text;
      parent.append(element);
      return element;
    };
    this.element = document.createElement("section");
    this.element.className = "queue";
    this.element.setAttribute("aria-label", name);
    const head = make("div", this.element);
    head.className = "head";
    make("b", head, name);
    this.#about = make("span", head);
    const buttons = make("div", head);
    buttons.className = "buttons";
    this.#hold = make("button", buttons, "Pause");
    this.#step = make("button", buttons, "Step");
    this.#hold.type = this.#step.type = "button";
    this.#hold.title = "Leave chains in the queue";
    this.#step.title = "Give the device one chain";
    this.#hold.addEventListener("click", () => {
      host.command(this.#view?.held ? "release" : "hold");
    });
    this.#step.addEventListener("click", () => host.command("step"));
    this.#canvas = make("canvas", this.element);
    this.#canvas.setAttribute("role", "img");
    this.#canvas.addEventListener("mousemove", (event) => this.#point(event));
    this.#canvas.addEventListener("mouseleave", () => host.explain(null));
    this.#list = make("dl", this.element);
    this.#chains = make("p", this.element);
    this.#chains.className = "chains";
  }

  /** Shows a queue. @param color Of a slot's state, as it is on this page. */
  show(view: QueueView, rates: Rates, color: (state: SlotState) => string): void {
    this.#view = view;
    // Many a driver sets queues up that it never uses.
    const used = view.counters.chains > 0 || view.held ||
      view.slots.some(({ state }) => state !== "free");
    this.element.hidden = !view.started || !used;
    if (this.element.hidden) return;
    this.#about.textContent = `${view.format} ring of ${view.size}`;
    this.#hold.textContent = view.held ? "Continue" : "Pause";
    this.#hold.setAttribute("aria-pressed", String(view.held));
    for (const { key, value } of view.fields) this.#set(key, value);
    for (const key of ["chains", "kicks", "interrupts"] as const) {
      this.#set(key, `${view.counters[key].toLocaleString("en")} (${Math.round(rates[key])}/s)`);
    }
    this.#showChains(view);
    this.#draw(view, color);
  }

  #set(key: string, value: string): void {
    let cell = this.#values.get(key);
    if (cell === undefined) {
      const explanation = EXPLANATIONS[key]!;
      const pair = document.createElement("div");
      const term = document.createElement("dt");
      term.textContent = explanation.name;
      term.title = `${explanation.text} (virtio 1.4, ${explanation.clause})`;
      term.tabIndex = 0;
      cell = document.createElement("dd");
      cell.dataset.key = key;
      pair.append(term, cell);
      this.#list.append(pair);
      for (const event of ["mouseenter", "focus"]) {
        term.addEventListener(event, () => this.#host.explain(explanation));
      }
      for (const event of ["mouseleave", "blur"]) {
        term.addEventListener(event, () => this.#host.explain(null));
      }
      this.#values.set(key, cell);
    }
    if (cell.textContent !== value) cell.textContent = value;
  }

  #showChains({ chains }: QueueView): void {
    if (chains.length === 0) {
      this.#chains.textContent = "Nothing in flight";
      return;
    }
    const named = chains.slice(0, NAMED).map(({ id, readable, writable, age, waits }) =>
      `#${id}: ${readable} B read, ${writable} B to write, ${waits ? "waits, " : ""}${time(age)}`
    );
    const more = chains.length - named.length;
    this.#chains.textContent = `In flight: ${named.join("; ")}${more > 0 ? `; ${more} more` : ""}`;
  }

  #draw(view: QueueView, color: (state: SlotState) => string): void {
    const { slots } = view;
    const columns = Math.min(COLUMNS, slots.length);
    const width = columns * CELL;
    const height = Math.ceil(slots.length / columns) * CELL;
    const canvas = this.#canvas;
    const scale = globalThis.devicePixelRatio || 1;
    if (canvas.width !== width * scale || canvas.height !== height * scale) {
      canvas.width = width * scale;
      canvas.height = height * scale;
      canvas.style.maxWidth = `${width}px`;
    }
    const context = canvas.getContext("2d")!;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const counts = new Map<SlotState, number>();
    slots.forEach(({ state }, i) => {
      counts.set(state, (counts.get(state) ?? 0) + 1);
      context.fillStyle = color(state);
      const x = (i % columns) * CELL;
      const y = Math.floor(i / columns) * CELL;
      context.fillRect(x + 0.5, y + 0.5, CELL - 1.5, CELL - 1.5);
    });
    const summary = [...counts].map(([state, count]) => `${count} ${state}`).join(", ");
    canvas.setAttribute("aria-label", `Descriptors: ${summary}`);
  }

  #point(event: MouseEvent): void {
    const slot = this.#slotAt(event);
    const view = this.#view;
    if (slot === null || view === null) return;
    const state = EXPLANATIONS[slot.state]!;
    const link = view.format === "split" ? `next ${slot.link}` : `buffer id ${slot.link}`;
    this.#host.explain({
      name: `descriptor ${slot.index}, ${state.name}`,
      clause: state.clause,
      text: `Address 0x${slot.address}, ${slot.length} bytes, flags ${
        flagNames(view.format, slot.flags)
      }, ${link}. ${state.text}`,
    });
  }

  #slotAt(event: MouseEvent): SlotView | null {
    const slots = this.#view?.slots ?? [];
    const columns = Math.min(COLUMNS, slots.length);
    const box = this.#canvas.getBoundingClientRect();
    const cell = box.width / columns;
    const column = Math.floor((event.clientX - box.left) / cell);
    const row = Math.floor((event.clientY - box.top) / cell);
    return column < 0 || column >= columns ? null : slots[row * columns + column] ?? null;
  }
}

function time(milliseconds: number): string {
  return milliseconds < 1000
    ? `${Math.round(milliseconds)} ms`
    : `${(milliseconds / 1000).toFixed(1)} s`;
}
