/** One queue on the page: made once, then filled again and again. */
import { EXPLANATIONS, flagNames } from "./explain.ts";
import { type SlotColors, SlotPicture } from "./slot_picture.ts";
import type { QueueView, SlotView } from "./snapshot.ts";

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
  readonly #picture: SlotPicture;
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
    this.#picture = new SlotPicture((slot) => this.#explainSlot(slot));
    this.element.append(this.#picture.element);
    this.#list = make("dl", this.element);
    this.#chains = make("p", this.element);
    this.#chains.className = "chains";
  }

  /** Shows a queue. @param width Pixels that there are for it. */
  show(view: QueueView, rates: Rates, colors: SlotColors, width: number): void {
    this.#view = view;
    // Many a driver sets queues up that it never uses.
    const used = view.counters.chains > 0 || view.held ||
      view.slots.some(({ state }) => state !== "free");
    this.element.hidden = !view.started || !used;
    if (this.element.hidden) return;
    setText(this.#about, `${view.format} ring of ${view.size}`);
    setText(this.#hold, view.held ? "Continue" : "Pause");
    this.#hold.setAttribute("aria-pressed", String(view.held));
    for (const { key, value } of view.fields) this.#set(key, value);
    for (const key of ["chains", "kicks", "interrupts"] as const) {
      this.#set(key, `${view.counters[key].toLocaleString("en")} (${Math.round(rates[key])}/s)`);
    }
    this.#showChains(view);
    this.#picture.show(view.slots, colors, width);
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
    setText(cell, value);
  }

  #showChains({ chains }: QueueView): void {
    if (chains.length === 0) {
      setText(this.#chains, "Nothing in flight");
      return;
    }
    const named = chains.slice(0, NAMED).map(({ id, readable, writable, age, waits }) =>
      `#${id}: ${readable} B read, ${writable} B to write, ${waits ? "waits, " : ""}${time(age)}`
    );
    const more = chains.length - named.length;
    setText(this.#chains, `In flight: ${named.join("; ")}${more > 0 ? `; ${more} more` : ""}`);
  }

  #explainSlot(slot: SlotView | null): void {
    const view = this.#view;
    if (slot === null || view === null) {
      this.#host.explain(null);
      return;
    }
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
}

/** What is there already costs nothing. */
function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

function time(milliseconds: number): string {
  return milliseconds < 1000
    ? `${Math.round(milliseconds)} ms`
    : `${(milliseconds / 1000).toFixed(1)} s`;
}
