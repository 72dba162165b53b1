import type { MutatedFile } from "./mutant.ts";

/** The console device and its driver. */
export const CONSOLE: readonly MutatedFile[] = [
  {
    file: "packages/console/device.ts",
    mutants: [
      {
        name: "console-full-stays-full",
        about: "a port that is removed leaves its output in the queue",
        edits: [["    this.resume(transmitQueue(id));\n", ""]],
      },
      {
        name: "console-input-lost-at-reset",
        about: "input that waits is dropped when the driver is reset",
        edits: [[
          "if (port !== null) this.#setGuestOpen(port, false);\n  }\n\n  /** See `QueueDevice.handle`. */",
          "if (port !== null) {\n      port.input.drop(port.input.length);\n      this.#setGuestOpen(port, false);\n    }\n  }\n\n  /** See `QueueDevice.handle`. */",
        ]],
      },
      {
        name: "console-multiport-not-negotiated",
        about: "the queues of other ports are served without MULTIPORT",
        edits: [["if (queue > 1 && !this.#multiport) {", "if (queue > 99 && !this.#multiport) {"]],
      },
      {
        name: "console-emergency-any-offset",
        about: "a write anywhere in the configuration is an emergency write",
        edits: [["offset !== ConsoleConfigOffset.emerg_wr ||\n", "offset < 0 ||\n"]],
      },
      {
        name: "console-emergency-only-live",
        about: "emerg_wr is taken only from a driver that has agreed on features",
        edits: [["      { offset: ConsoleConfigOffset.emerg_wr, length: 4 },\n", ""]],
      },
      {
        name: "console-size-not-shown",
        about: "a new size of port 0 is not in the configuration",
        edits: [[
          "    if (port.id === 0) this.#showSize(size);\n    if (port.ready",
          "    if (port.ready",
        ]],
      },
      {
        name: "console-restored-open",
        about: "after a restore the driver is not told that the host's side changed",
        edits: [["if (here.toldOpen !== here.hostOpen) here.setHostOpen(here.hostOpen);", ""]],
      },
    ],
  },
  {
    file: "packages/console/save.ts",
    mutants: [
      {
        name: "console-restored-input-lost",
        about: "input that waited is lost when a state is restored",
        edits: [["    here.input.push(bytes, 0, bytes.length);\n", ""]],
      },
    ],
  },
  {
    file: "packages/console/output.ts",
    mutants: [
      {
        name: "console-output-repeated",
        about: "what a full back end took of a chain is given to it again",
        edits: [["if (taken > 0) reader.skip(", "if (taken < 0) reader.skip("]],
      },
      {
        name: "console-output-skipped-after-queue-reset",
        about: "bytes of the first chain after a queue reset are skipped",
        edits: [[
          "if (before !== null && before !== queue) this.taken[id] = 0;",
          "if (before === null) this.taken[id] = 0;",
        ]],
      },
      {
        name: "console-output-skipped-after-reset",
        about: "bytes of the first chain of the next driver are skipped",
        edits: [["    this.taken.fill(0);\n", ""]],
      },
      {
        name: "console-output-of-closed-port",
        about: "output reaches a port whose host's side is closed",
        edits: [[
          "if (port === null || !port.hostOpen) {\n      this.#link.stats.outputDiscarded",
          "if (port === null) {\n      this.#link.stats.outputDiscarded",
        ]],
      },
      {
        name: "console-output-all-at-once",
        about: "a chain of any length is passed on in one turn",
        edits: [["const PIECE = 1 << 24;", "const PIECE = 1 << 30;"]],
      },
      {
        name: "console-emergency-overtaken",
        about: "output overtakes characters of emerg_wr that wait",
        edits: [[
          "if (id === 0 && this.#early.length > 0 && !this.#flushEarly(port)) return BUSY;",
          "",
        ]],
      },
      {
        name: "console-back-end-lies",
        about: "what a back end says that it took is believed",
        edits: [[
          "if (!(Number.isInteger(count) && count >= 0 && count <= length)) {",
          "if (count === null) {",
        ]],
      },
    ],
  },
  {
    file: "packages/console/input.ts",
    mutants: [
      {
        name: "console-input-to-closed-port",
        about: "input goes into the buffers of a port that the guest has closed",
        edits: [[
          "return port.guestOpen && this.#link.live();",
          "return this.#link.live();",
        ]],
      },
      {
        name: "console-input-overtakes",
        about: "new input overtakes what waits",
        edits: [[
          "if (port.input.length === 0 && this.#flows(port)) {",
          "if (this.#flows(port)) {",
        ]],
      },
      {
        name: "console-input-refused-silently",
        about: "a back end whose input was refused never hears of room",
        edits: [["if (done < length) port.refused = true;", ""]],
      },
      {
        name: "console-input-empty-buffer",
        about: "buffers that nothing can be written to are taken for input",
        edits: [[
          "if (chain !== null && chain.writable === 0) {",
          "if (chain !== null && chain.writable < 0) {",
        ]],
      },
    ],
  },
  {
    file: "packages/console/control_channel.ts",
    mutants: [
      {
        name: "console-message-of-unknown-port",
        about: "messages of ports that the driver was not told of are taken",
        edits: [[
          "if (port === null || this.announced[id] !== port) return false;",
          "if (port === null) return false;",
        ]],
      },
      {
        name: "console-open-before-ready",
        about: "a port can be opened before it is ready",
        edits: [[
          "if (event !== VIRTIO_CONSOLE_PORT_OPEN || !port.ready) return false;",
          "if (event !== VIRTIO_CONSOLE_PORT_OPEN) return false;",
        ]],
      },
      {
        name: "console-message-values",
        about: "messages with values that mean nothing are taken",
        edits: [["if (value > 1 || !this.#understood(", "if (!this.#understood("]],
      },
      {
        name: "console-short-message",
        about: "a message of less than its header is read",
        edits: [["if (reader.remaining < CONTROL_SIZE) {", "if (reader.remaining < 1) {"]],
      },
      {
        name: "console-control-before-ready",
        about: "ports are announced before DEVICE_READY",
        edits: [[
          "if (!this.driverReady || this.#sending) return;",
          "if (this.#sending) return;",
        ]],
      },
      {
        name: "console-control-truncated",
        about: "a message is cut where the driver's buffer ends",
        edits: [["if (chain.writable < sender.length) {", "if (chain.writable < 0) {"]],
      },
    ],
  },
  {
    file: "packages/console/control.ts",
    mutants: [
      {
        name: "console-added-twice",
        about: "a port is added again while it exists",
        edits: [["        this.announced[port.id] = port;\n", ""]],
        hangs: true,
      },
      {
        name: "console-gone-unsaid",
        about: "the driver is not told that a port is gone",
        edits: [[
          "if (known !== null && known !== here) {",
          "if (known !== null && here !== null && known !== here) {",
        ]],
      },
      {
        name: "console-resize-order",
        about: "the default order of a resize is that of old Linux",
        edits: [["this.#rowsFirst ? rows : cols, true", "this.#rowsFirst ? cols : rows, true"]],
      },
      {
        name: "console-told-open",
        about: "the device does not remember what it told the driver of the host's side",
        edits: [["port.toldOpen = this.#view.getUint16(6, true) === 1;", "port.toldOpen = false;"]],
      },
    ],
  },
  {
    file: "packages/console/port_state.ts",
    mutants: [
      {
        name: "console-closing-missed",
        about: "a driver without buffers misses that a port was closed and opened",
        edits: [[
          "      this.due |= Due.open;\n    } else {",
          "      this.due = (this.due & ~Due.closed) | Due.open;\n    } else {",
        ]],
      },
      {
        name: "console-closed-announced-open",
        about: "a port whose host's side is closed is announced as open",
        edits: [["this.due = this.hostOpen ? Due.open : 0;", "this.due = Due.open;"]],
      },
    ],
  },
  {
    file: "packages/console/byte_ring.ts",
    mutants: [
      {
        name: "console-ring-wrap",
        about: "what wraps around in the ring is put behind its first piece",
        edits: [[
          "if (first < count) this.#bytes.set(from.subarray(at + first, at + count), 0);",
          "",
        ]],
      },
      {
        name: "console-ring-unbounded",
        about: "waiting bytes have no bound",
        edits: [["const count = Math.min(max, this.room);", "const count = max;"]],
      },
    ],
  },
  {
    file: "packages/console/driver/console_driver.ts",
    mutants: [
      {
        name: "console-driver-no-device-ready",
        about: "the driver does not say that it is ready",
        edits: [["    this.#controlOut.send(0, VIRTIO_CONSOLE_DEVICE_READY, 1);\n", ""]],
      },
      {
        name: "console-driver-port-beyond",
        about: "the driver takes messages of ports beyond those that it uses",
        edits: [[
          "if (id >= this.#ports.length) return false;",
          "if (id > this.#ports.length) return false;",
        ]],
      },
      {
        name: "console-driver-short-resize",
        about: "the driver reads a resize that is too short",
        edits: [[
          "if (bytes.length < CONTROL_SIZE + 4) return false;",
          "if (bytes.length < CONTROL_SIZE) return false;",
        ]],
      },
      {
        name: "console-driver-added-twice",
        about: "the driver takes a port that is added twice for a new one",
        edits: [[
          "if (port !== null) return false;\n      this.#addPort(id);",
          "this.#addPort(id);",
        ]],
      },
    ],
  },
  {
    file: "packages/console/driver/port.ts",
    mutants: [
      {
        name: "console-driver-console-unanswered",
        about: "the driver does not answer CONSOLE_PORT",
        edits: [[
          "    this.#link.due(this, PortDue.open);\n    if (this.#console) return;",
          "    if (this.#console) return;",
        ]],
      },
    ],
  },
  {
    file: "packages/console/driver/transmit_queue.ts",
    mutants: [
      {
        name: "console-driver-early",
        about: "a write is done when its first buffer was used",
        edits: [[
          "--owner.inFlight === 0 && owner.at === owner.bytes.length",
          "owner.inFlight-- > 0",
        ]],
      },
      {
        name: "console-driver-writable-output",
        about: "the driver puts buffers into a transmitq that the device may write",
        edits: [[
          "this.#list.clear().readable(at, length);",
          "this.#list.clear().writable(at, length);",
        ]],
      },
    ],
  },
  {
    file: "packages/console/driver/receive_queue.ts",
    mutants: [
      {
        name: "console-driver-buffers-lost",
        about: "buffers that were taken are not posted again",
        edits: [["for (let i = 0; i < count; i++) this.#post(this.#again[i]!);", ""]],
      },
      {
        name: "console-driver-readable-input",
        about: "the driver posts buffers to a receiveq that the device may read",
        edits: [["this.#list.clear().writable(", "this.#list.clear().readable("]],
      },
    ],
  },
];
