/** The slots of a ring as a picture: a cell each, coloured by whose it is. What it stands for is asked for by mouse or keys. */
import type { SlotState, SlotView } from "./snapshot.ts";

/** Cells of a row, where there is room for them and where there is not. */
const COLUMNS = 64;
const FEW_COLUMNS = 32;
/** Pixels of a cell as it is drawn, and at most as it is shown. */
const CELL = 9;
const MOST_CELL = 12;
/** Pixels below which a page is narrow. */
const NARROW = 420;

/** Colours as they are on this page. */
export interface SlotColors {
  /** By whose it is. */
  readonly states: Readonly<Record<SlotState, string>>;
  /** Of the cell that the keyboard is at. */
  readonly mark: string;
}

/** A picture: only what changed is drawn again. */
export class SlotPicture {
  /** The element to put into a page. */
  readonly element: HTMLCanvasElement;
  readonly #tell: (slot: SlotView | null) => void;
  #slots: readonly SlotView[] = [];
  #colors: SlotColors | null = null;
  #columns = COLUMNS;
  /** The cell where the keyboard is; -1 while it is elsewhere. */
  #cursor = -1;
  /** Where it was last. */
  #last = 0;
  /** What each cell looks like, and how large the picture is. */
  #drawn: string[] = [];
  #scale = 0;

  /** @param tell Told which slot is pointed at; null: none any more. */
  constructor(tell: (slot: SlotView | null) => void) {
    this.#tell = tell;
    const canvas = document.createElement("canvas");
    this.element = canvas;
    canvas.setAttribute("role", "img");
    canvas.tabIndex = 0;
    canvas.addEventListener("mousemove", (event) => {
      const slot = this.#slots[this.#placeAt(event)];
      if (slot !== undefined) tell(slot);
    });
    // The keys go on from there.
    canvas.addEventListener("mousedown", (event) => {
      const place = this.#placeAt(event);
      if (place < this.#slots.length) this.#last = Math.max(0, place);
    });
    canvas.addEventListener("mouseleave", () => tell(this.#slots[this.#cursor] ?? null));
    canvas.addEventListener("focus", () => this.#move(this.#last));
    canvas.addEventListener("blur", () => {
      this.#cursor = -1;
      this.#draw();
      tell(null);
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Shows slots. @param width Pixels that there are for it; 0 if that is not known. */
  show(slots: readonly SlotView[], colors: SlotColors, width: number): void {
    this.#slots = slots;
    this.#colors = colors;
    const most = width > 0 && width < NARROW ? FEW_COLUMNS : COLUMNS;
    this.#columns = Math.max(1, Math.min(most, slots.length));
    this.#last = Math.min(this.#last, Math.max(0, slots.length - 1));
    if (this.#cursor >= slots.length) this.#cursor = this.#last;
    this.#draw();
    const counts = new Map<SlotState, number>();
    for (const { state } of slots) counts.set(state, (counts.get(state) ?? 0) + 1);
    const summary = [...counts].map(([state, count]) => `${count} ${state}`).join(", ");
    const label = `Descriptors: ${summary}`;
    if (this.element.getAttribute("aria-label") !== label) {
      this.element.setAttribute("aria-label", label);
    }
  }

  #draw(): void {
    const colors = this.#colors;
    if (colors === null) return;
    const context = this.#prepare();
    for (let i = 0; i < this.#slots.length; i++) {
      const marked = i === this.#cursor;
      const color = colors.states[this.#slots[i]!.state];
      const look = marked ? `${color} ${colors.mark}` : color;
      if (this.#drawn[i] === look) continue;
      this.#drawn[i] = look;
      const x = (i % this.#columns) * CELL;
      const y = Math.floor(i / this.#columns) * CELL;
      context.clearRect(x, y, CELL, CELL);
      context.fillStyle = marked ? colors.mark : color;
      context.fillRect(x + 0.5, y + 0.5, CELL - 1.5, CELL - 1.5);
      if (!marked) continue;
      context.fillStyle = color;
      context.fillRect(x + 3, y + 3, CELL - 6.5, CELL - 6.5);
    }
  }

  #prepare(): CanvasRenderingContext2D {
    const canvas = this.element;
    const scale = globalThis.devicePixelRatio || 1;
    const width = this.#columns * CELL;
    const height = Math.ceil(this.#slots.length / this.#columns) * CELL;
    const context = canvas.getContext("2d")!;
    if (
      scale === this.#scale && canvas.width === Math.round(width * scale) &&
      canvas.height === Math.round(height * scale) && this.#drawn.length <= this.#slots.length
    ) return context;
    this.#scale = scale;
    this.#drawn = [];
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.maxWidth = `${this.#columns * MOST_CELL}px`;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    return context;
  }

  #key(event: KeyboardEvent): void {
    const end = this.#slots.length - 1;
    const steps: Record<string, number> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this.#columns,
      ArrowDown: this.#columns,
      Home: -Infinity,
      End: Infinity,
    };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    // The page would scroll.
    event.preventDefault();
    this.#move(Math.max(0, Math.min(end, this.#last + step)));
  }

  #move(index: number): void {
    this.#cursor = this.#last = index;
    this.#draw();
    this.#tell(this.#slots[index] ?? null);
  }

  /** Which cell the mouse is at; -1: none. */
  #placeAt(event: MouseEvent): number {
    const columns = this.#columns;
    const box = this.element.getBoundingClientRect();
    const cell = box.width / columns;
    const column = Math.floor((event.clientX - box.left) / cell);
    const row = Math.floor((event.clientY - box.top) / cell);
    return column < 0 || column >= columns || row < 0 ? -1 : row * columns + column;
  }
}
