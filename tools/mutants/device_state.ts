import type { MutatedFile } from "./mutant.ts";

/** The status machine. */
export const DEVICE_STATE: readonly MutatedFile[] = [
  {
    file: "packages/device/device_state.ts",
    mutants: [
      {
        name: "driver-ok-before-features-ok",
        about: "DRIVER_OK starts a device whose features are not negotiated",
        edits: [[
          `  #start(): void {
    if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) return;`,
          "  #start(): void {",
        ]],
      },
      {
        name: "driver-sets-needs-reset",
        about: "the driver can set DEVICE_NEEDS_RESET",
        edits: [[
          "(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED);",
          "(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED | VIRTIO_STATUS_DEVICE_NEEDS_RESET);",
        ]],
      },
      {
        name: "starts-after-failed",
        about: "a device goes on being set up after FAILED or DEVICE_NEEDS_RESET",
        edits: [[
          "if ((this.#status & (VIRTIO_STATUS_DEVICE_NEEDS_RESET | VIRTIO_STATUS_FAILED)) !== 0) return;",
          "",
        ]],
      },
      {
        name: "needs-reset-silent",
        about: "DEVICE_NEEDS_RESET comes without a configuration change notification",
        edits: [[
          "if ((this.#status & VIRTIO_STATUS_DRIVER_OK) !== 0) activation?.interrupt.config();",
          "",
        ]],
      },
      {
        name: "needs-reset-goes-on",
        about: "a device that asks for a reset goes on with its queues",
        edits: [[
          "if (activation !== null && this.#activation === activation) this.#stopDevice();",
          "",
        ]],
      },
      {
        name: "needs-reset-not-set",
        about: "a device stops for an error but does not ask for a reset",
        edits: [["this.#status |= VIRTIO_STATUS_DEVICE_NEEDS_RESET;", ""]],
      },
      {
        name: "features-after-features-ok",
        about: "the driver can change features after FEATURES_OK",
        edits: [[
          "if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) this.#negotiation.write",
          "this.#negotiation.write",
        ]],
      },
      {
        name: "early-kick-lost",
        about: "a kick before DRIVER_OK is forgotten",
        edits: [[
          `    // A kick may have come early.
    this.#notifyAll();`,
          "",
        ]],
      },
      {
        name: "reset-does-not-drain",
        about: "the status reads 0 while the device may still touch memory",
        edits: [["if (!this.#queues.draining) {", "if (this.#deferredStatus >= 0) {"]],
      },
      {
        name: "reset-keeps-queues",
        about: "a reset leaves the registers of queues as they were",
        edits: [[
          "      this.#queues.reset();\n      this.#options.onReset",
          "      this.#options.onReset",
        ]],
      },
      {
        name: "reset-keeps-features",
        about: "a reset leaves the accepted features as they were",
        edits: [[
          "      this.#status = 0;\n      this.#negotiation.reset();\n",
          "      this.#status = 0;\n",
        ]],
      },
      {
        name: "reset-keeps-going",
        about: "a reset does not stop the device",
        edits: [[
          "if (this.#activation !== null) this.#stopDevice();\n    const finish",
          "const finish",
        ]],
      },
      {
        name: "status-lost-while-resetting",
        about: "a status that is written while a reset drains is forgotten",
        edits: [["if (deferred !== 0) this.writeStatus(deferred);", ""]],
      },
      {
        name: "config-write-before-features-ok",
        about: "the configuration can be written before FEATURES_OK",
        edits: [[
          `(offset, size)) {
      if ((this.#status & VIRTIO_STATUS_FEATURES_OK) === 0) return;`,
          "(offset, size)) {",
        ]],
      },
      {
        name: "config-write-while-suspended",
        about: "the configuration can be written while the device is suspended",
        edits: [[
          "if ((this.#status & VIRTIO_STATUS_SUSPEND) !== 0 || this.#resetting !== null) return;",
          "if (this.#resetting !== null) return;",
        ]],
      },
      {
        name: "suspend-not-negotiated",
        about: "SUSPEND is honoured though it was not negotiated",
        edits: [["if (!this.#negotiation.has(VIRTIO_F_SUSPEND)) return;", ""]],
      },
      {
        name: "ring-reset-not-negotiated",
        about: "a queue can be reset though RING_RESET was not negotiated",
        edits: [[
          `if (!this.#negotiation.has(VIRTIO_F_RING_RESET)) return;
    const setup`,
          "const setup",
        ]],
      },
      {
        name: "enable-after-driver-ok",
        about: "a queue can be enabled after DRIVER_OK though RING_RESET was not negotiated",
        edits: [[
          `if (!this.#negotiation.has(VIRTIO_F_RING_RESET)) return;
    if (this.#activation`,
          "if (this.#activation",
        ]],
      },
      {
        name: "save-while-running",
        about: "a device can be saved while it runs",
        edits: [[
          "if (this.live || this.#resetting !== null || this.#queues.draining) {",
          "if (this.#resetting !== null) {",
        ]],
      },
    ],
  },
  {
    file: "packages/device/rest.ts",
    mutants: [
      {
        name: "suspend-does-not-drain",
        about: "the status says suspended while requests are being worked on",
        edits: [[
          "this.suspending = true;",
          "this.suspending = true;\n    suspended();",
        ]],
      },
      {
        name: "suspend-changes-config",
        about: "the configuration changes while the device is suspended",
        edits: [["      this.#config.hold();\n    });", "    });"]],
      },
      {
        name: "resume-forgets-config",
        about: "a configuration that changed while suspended is not told of on resume",
        edits: [[
          "if (this.#config.release()) this.configChanged = true;",
          "this.#config.release();",
        ]],
      },
      {
        name: "resume-forgets-kicks",
        about: "what was made available while suspended is not looked at on resume",
        edits: [[
          "      this.#host.notifyAll();\n",
          "",
        ]],
      },
    ],
  },
  {
    file: "packages/device/activation.ts",
    mutants: [
      {
        name: "interrupts-after-reset",
        about: "a device of an earlier life can still interrupt",
        edits: [[
          "const isLive = (): boolean => host.isCurrent(activation);",
          "const isLive = (): boolean => true;",
        ]],
      },
    ],
  },
];
