import type { MutatedFile } from "./mutant.ts";

/** Both halves of the MMIO transport. */
export const MMIO: readonly MutatedFile[] = [
  {
    file: "packages/transport/mmio/transport.ts",
    mutants: [
      {
        name: "mmio-ack-ignored",
        about: "InterruptACK does nothing",
        edits: [["this.#interruptStatus &= ~value;", ""]],
        first: ["packages/transport/mmio/transport_test.ts"],
      },
      {
        name: "mmio-ack-clears-all",
        about: "InterruptACK clears bits that were not acknowledged",
        edits: [["this.#interruptStatus &= ~value;", "this.#interruptStatus = 0;"]],
      },
      {
        name: "mmio-read-clears",
        about: "reading InterruptStatus clears it",
        edits: [[
          "return this.#interruptStatus;",
          `{
        const status = this.#interruptStatus;
        this.#interruptStatus = 0;
        return status;
      }`,
        ]],
      },
      {
        name: "mmio-queue-bit-wrong",
        about: "a used buffer notification sets the configuration bit of InterruptStatus",
        edits: [[
          "this.#raise(reg.VIRTIO_MMIO_INT_VRING)",
          "this.#raise(reg.VIRTIO_MMIO_INT_CONFIG)",
        ]],
      },
      {
        name: "mmio-ready-not-read-back",
        about: "QueueReady reads as 0 whatever was written",
        edits: [["return this.#queue?.enabled ? 1 : 0;", "return this.#queue?.enabled ? 0 : 0;"]],
      },
      {
        name: "mmio-ready-any",
        about: "any value written to QueueReady makes the queue ready",
        edits: [[
          "if (value === 1) this.state.enableQueue",
          "if (value !== 0) this.state.enableQueue",
        ]],
      },
      {
        name: "mmio-ready-zero-ignored",
        about: "a queue cannot be taken back by writing 0 to QueueReady",
        edits: [["else if (value === 0) this.state.disableQueue(this.#queueSelect);", ""]],
      },
      {
        name: "mmio-queue-select-wraps",
        about: "QueueSel beyond the queues selects one of them",
        edits: [[
          "return this.state.queues[this.#queueSelect];",
          "return this.state.queues[this.#queueSelect % this.state.queues.length];",
        ]],
      },
      {
        name: "mmio-kick-data-not-negotiated",
        about: "the upper half of a kick is dropped though NOTIFICATION_DATA was not negotiated",
        edits: [["this.#notificationData ? value & 0xffff : value >>> 0", "value & 0xffff"]],
      },
      {
        name: "mmio-kick-data-ignored",
        about: "a kick with data is taken for a queue number",
        edits: [["this.#notificationData ? value & 0xffff : value >>> 0", "value >>> 0"]],
      },
      {
        name: "mmio-narrow-read-answered",
        about: "control registers answer reads of 8 and 16 bits",
        edits: [[
          `    if (size !== 4) return 0;
    switch (offset) {
      case reg.VIRTIO_MMIO_INTERRUPT_STATUS:`,
          `    switch (offset) {
      case reg.VIRTIO_MMIO_INTERRUPT_STATUS:`,
        ]],
      },
      {
        name: "mmio-narrow-write-taken",
        about: "control registers take writes of 8 and 16 bits",
        edits: [["    if (size !== 4) return;\n", ""]],
      },
      {
        name: "mmio-generation-stays",
        about: "ConfigGeneration never changes",
        edits: [["return this.state.configGeneration >>> 0;", "return 0;"]],
      },
      {
        name: "mmio-absent-memory-empty",
        about: "a shared memory region that does not exist has length 0",
        edits: [[
          "return value === undefined ? 0xffff_ffff : value >>> 0;",
          "return value === undefined ? 0 : value >>> 0;",
        ]],
      },
      {
        name: "mmio-interrupts-survive-reset",
        about: "InterruptStatus survives a reset",
        edits: [[
          `    this.#interruptStatus = 0;
    this.#updateLine();`,
          "    this.#updateLine();",
        ]],
      },
      {
        name: "mmio-queue-reset-any",
        about: "any value written to QueueReset resets the queue",
        edits: [[
          "if (value === 1 && this.#queue !== undefined)",
          "if (this.#queue !== undefined)",
        ]],
      },
      {
        name: "mmio-device-high-half-lost",
        about: "the upper half of the device area's address goes to the lower",
        edits: [[
          "this.#queue?.writeAddress(2, 1, value >>> 0);",
          "this.#queue?.writeAddress(2, 0, value >>> 0);",
        ]],
      },
    ],
  },
  {
    file: "packages/transport/mmio/driver_transport.ts",
    mutants: [
      {
        name: "mmio-driver-ack-missing",
        about: "the driver does not acknowledge interrupts",
        edits: [["this.#write(reg.VIRTIO_MMIO_INTERRUPT_ACK, events);", ""]],
        hangs: true,
        first: ["packages/transport/mmio/driver_transport_test.ts"],
      },
      {
        name: "mmio-driver-undefined-acknowledged",
        about: "the driver takes undefined bits of InterruptStatus for events",
        edits: [[
          "this.#read(reg.VIRTIO_MMIO_INTERRUPT_STATUS) & DEFINED_INTERRUPTS;",
          "this.#read(reg.VIRTIO_MMIO_INTERRUPT_STATUS);",
        ]],
      },
      {
        name: "mmio-driver-event-between-lost",
        about: "what was used between handling and acknowledging is not looked at",
        edits: [[
          `    if (queue) this.interrupts?.queue(null);
    if (config && (generation`,
          "    if (config && (generation",
        ]],
      },
      {
        name: "mmio-driver-ready-not-read",
        about: "the driver sets up a queue that is in use",
        edits: [[
          `    if (this.#read(reg.VIRTIO_MMIO_QUEUE_READY) !== 0) {
      throw`,
          `    if (index < 0) {
      throw`,
        ]],
      },
      {
        name: "mmio-driver-version-unchecked",
        about: "the driver takes a device of any version",
        edits: [["if (version !== 2) {", "if (version === 0) {"]],
      },
    ],
  },
];
