import type { MutatedFile } from "./mutant.ts";

/** The driver's initialisation and what comes after. */
export const DRIVER_SESSION: readonly MutatedFile[] = [
  {
    file: "packages/device/driver_session.ts",
    mutants: [
      {
        name: "session-config-torn",
        about: "the driver reads the configuration once, whether it changed meanwhile or not",
        edits: [[
          "if (this.transport.configGeneration() === before) return value;",
          "return value;",
        ]],
      },
      {
        name: "session-failed-not-set",
        about: "a driver that gives up does not set FAILED",
        edits: [["session.#addStatus(VIRTIO_STATUS_FAILED);", ""]],
      },
      {
        name: "session-features-ok-not-read",
        about: "the driver does not look whether FEATURES_OK stayed",
        edits: [[
          "if ((transport.readStatus() & VIRTIO_STATUS_FEATURES_OK) === 0) {",
          "if (false) {",
        ]],
      },
      {
        name: "session-driver-ok-early",
        about: "DRIVER_OK is set before the queues are there",
        edits: [[
          "for (const { index, size } of options.queues(session)) session.#openQueue(index, size);",
          `const wanted = options.queues(session);
      session.#addStatus(VIRTIO_STATUS_DRIVER_OK);
      for (const { index, size } of wanted) session.#openQueue(index, size);`,
        ]],
      },
      {
        name: "session-reset-not-awaited",
        about: "the driver does not wait until the status reads 0",
        edits: [[
          `await this.#until("finish a reset", () => this.transport.readStatus() === 0);`,
          "await Promise.resolve();",
        ]],
      },
      {
        name: "session-accepts-not-offered",
        about: "the driver accepts features that were not offered",
        edits: [[
          "let accepted = offered & ((wanted & DEVICE_TYPE_FEATURES) | core);",
          "let accepted = (wanted & DEVICE_TYPE_FEATURES) | core;",
        ]],
      },
      {
        name: "session-legacy-accepted",
        about: "the driver takes a device without VERSION_1",
        edits: [["if ((offered & VIRTIO_F_VERSION_1) === 0n) {", "if (false) {"]],
      },
      {
        name: "session-kick-before-driver-ok",
        about: "the driver kicks before DRIVER_OK",
        edits: [[
          "if (!queue.publish() || !this.#live) return false;",
          "if (!queue.publish()) return false;",
        ]],
      },
      {
        name: "session-first-kick-missing",
        about: "what was put into queues before DRIVER_OK is not kicked for",
        edits: [["if (queue.inFlight > 0) session.#kick(index);", "queue.inFlight;"]],
      },
      {
        name: "session-queue-reset-not-awaited",
        about: "the driver sets a queue up again while its reset is not complete",
        edits: [[
          "await this.#until(`reset queue ${index}`, () => this.transport.queueResetDone(index));",
          "",
        ]],
      },
      {
        name: "session-dependency-ignored",
        about: "the driver accepts a feature without the one that it needs",
        edits: [["if (unmet === null) break;", "if (unmet === null || unmet !== 0n) break;"]],
      },
      {
        name: "session-needs-reset-unseen",
        about: "the driver takes DEVICE_NEEDS_RESET for a change of the configuration",
        edits: [[
          `    if ((this.transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
      this.handlers.needsReset();`,
          `    if (this.transport.readStatus() < 0) {
      this.handlers.needsReset();`,
        ]],
      },
    ],
  },
];
