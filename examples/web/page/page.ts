/** The page: a terminal, and what the guest's devices do. The machine itself is in a worker. */
import "@virtio/inspect/element";
import type { VirtioRings } from "@virtio/inspect/element";
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import { DeviceTable } from "./device_table.ts";
import type { ToMachine, ToPage } from "./messages.ts";
import { takeNumber } from "./number.ts";
import { terminalTheme } from "./theme.ts";

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;

const status = element("status");
const network = element<HTMLButtonElement>("network");
const power = element<HTMLButtonElement>("power");
const table = new DeviceTable(element<HTMLTableSectionElement>("devices"), element("exits"));

const rings = element<VirtioRings>("rings");
const ringsButton = element<HTMLButtonElement>("show-rings");

const dark = matchMedia("(prefers-color-scheme: dark)");
const terminal = new Terminal({
  fontFamily: "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace",
  fontSize: 14,
  // Rows cut off what hangs below them: in some fonts that is the underscore.
  lineHeight: 1.15,
  scrollback: 5000,
  theme: terminalTheme(dark.matches),
  // Screen readers are told what the guest writes.
  screenReaderMode: false,
});
dark.addEventListener("change", () => terminal.options.theme = terminalTheme(dark.matches));
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(element("terminal"));
fit.fit();

const worker = new Worker(new URL("machine_worker.js", import.meta.url), { type: "module" });
const tell = (message: ToMachine): void => worker.postMessage(message);
const encoder = new TextEncoder();

function showStatus(text: string, kind: "busy" | "up" | "down" = "busy"): void {
  status.textContent = text;
  status.dataset.kind = kind;
}

let up = true;
network.addEventListener("click", () => {
  up = !up;
  network.setAttribute("aria-pressed", String(!up));
  network.textContent = up ? "Unplug network" : "Plug network in";
  tell({ say: "link", up });
  terminal.focus();
});
let showRings = true;
/** Nobody pays for what nobody sees. */
function lookAtRings(): void {
  rings.hidden = !showRings;
  ringsButton.textContent = showRings ? "Hide rings" : "Show rings";
  ringsButton.setAttribute("aria-expanded", String(showRings));
  tell({ say: "inspect", on: showRings && !document.hidden });
}
ringsButton.addEventListener("click", () => {
  showRings = !showRings;
  lookAtRings();
});
document.addEventListener("visibilitychange", lookAtRings);
rings.addEventListener("command", (event) => {
  tell({ say: "command", command: (event as CustomEvent).detail });
});
power.addEventListener("click", () => location.reload());

// Tab is the guest's, so there has to be another way out of the terminal without a mouse.
terminal.attachCustomKeyEventHandler((event) => event.key !== "F6");
addEventListener("keydown", (event) => {
  if (event.key !== "F6" || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) {
    return;
  }
  event.preventDefault();
  if (terminal.textarea === document.activeElement) ringsButton.focus();
  else terminal.focus();
});
terminal.textarea?.setAttribute("aria-label", "The guest's terminal; F6 leaves it, and comes back");

terminal.onData((text) => tell({ say: "input", bytes: encoder.encode(text) }));
terminal.onBinary((text) =>
  tell({ say: "input", bytes: Uint8Array.from(text, (letter) => letter.charCodeAt(0)) })
);
terminal.onResize(({ cols, rows }) => tell({ say: "resize", cols, rows }));
new ResizeObserver(() => fit.fit()).observe(element("terminal"));

function stopped(text: string): void {
  showStatus(text, "down");
  network.disabled = true;
  power.hidden = false;
  power.focus();
}

worker.addEventListener("error", (event) => stopped(`The machine failed: ${event.message}`));
worker.addEventListener("message", ({ data }: MessageEvent<ToPage>) => {
  switch (data.say) {
    case "step":
      showStatus(data.text);
      break;
    case "running": {
      const size = `${Math.round(data.diskBytes / 2 ** 20)} MiB`;
      showStatus(data.newDisk ? `Running, new disk of ${size}` : `Running, disk of ${size}`, "up");
      network.disabled = false;
      lookAtRings();
      break;
    }
    case "output":
      terminal.write(data.bytes, () => tell({ say: "shown", bytes: data.bytes.length }));
      break;
    case "figures":
      table.show(data.devices, data.exits);
      break;
    case "rings":
      rings.snapshot = data.snapshot;
      break;
    case "stopped":
      stopped(data.reason === "poweroff" ? "The guest is off" : `Stopped: ${data.reason}`);
      break;
    case "failed":
      stopped(data.reason);
      break;
  }
});
// A tab that closes gives its disk back at once.
addEventListener("pagehide", () => tell({ say: "end" }));

const guest = await takeNumber();
if (guest === null) {
  stopped("All guests are running in other tabs: close one");
} else {
  document.title = `guest-${guest} · virtio`;
  element("guest").textContent = `guest-${guest}`;
  tell({ say: "start", guest, diskSize: 2 ** 30, cols: terminal.cols, rows: terminal.rows });
  terminal.focus();
}
