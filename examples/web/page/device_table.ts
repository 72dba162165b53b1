/** What the devices do, a row each: rates since the last look. */
import type { DeviceFigures } from "./messages.ts";

/** A table that is filled again and again. */
export class DeviceTable {
  readonly #body: HTMLTableSectionElement;
  readonly #exits: HTMLElement;
  #before: { at: number; devices: readonly DeviceFigures[]; exits: number } | null = null;

  constructor(body: HTMLTableSectionElement, exits: HTMLElement) {
    this.#body = body;
    this.#exits = exits;
  }

  /** Shows figures; nothing is done while nobody sees the page. */
  show(devices: readonly DeviceFigures[], exits: number): void {
    if (document.hidden) return;
    const at = performance.now();
    const before = this.#before;
    this.#before = { at, devices, exits };
    const seconds = before === null ? 1 : (at - before.at) / 1000;
    devices.forEach((device, i) => {
      const old = before?.devices[i];
      const rate = (name: "kicks" | "interrupts" | "chains" | "received" | "sent"): number =>
        old === undefined ? 0 : (device[name] - old[name]) / seconds;
      const row = this.#body.rows[i] ?? this.#addRow(device);
      const cells = [
        count(rate("chains")),
        count(rate("kicks")),
        count(rate("interrupts")),
        `${bytes(rate("sent"))}/s`,
        `${bytes(rate("received"))}/s`,
      ];
      cells.forEach((text, cell) => row.cells[cell + 1]!.textContent = text);
      row.dataset.chains = String(device.chains);
    });
    const rate = before === null ? 0 : (exits - before.exits) / seconds;
    this.#exits.textContent = count(rate);
  }

  #addRow({ name, about }: DeviceFigures): HTMLTableRowElement {
    const row = this.#body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    head.title = about;
    row.append(head);
    for (let i = 0; i < 5; i++) row.insertCell();
    return row;
  }
}

function count(value: number): string {
  return Math.round(value).toLocaleString("en");
}

function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
