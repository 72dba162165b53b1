import type { MutatedFile } from "./mutant.ts";

/** The block driver. */
export const BLK_DRIVER: readonly MutatedFile[] = [
  {
    file: "packages/blk/driver/request_queue.ts",
    mutants: [
      {
        name: "blk-driver-status-not-covered",
        about: "the driver believes a status that the used length does not cover",
        edits: [[
          "const covered = this.#queue.usedLength >= this.#writable[slot]!;",
          "const covered = slot >= 0;",
        ]],
      },
      {
        name: "blk-driver-segments-unchecked",
        about: "the driver sends more segments than the device takes",
        edits: [["if (segments > segMax) {", "if (false) {"]],
      },
      {
        name: "blk-driver-segment-size-ignored",
        about: "the driver sends segments that are larger than the device takes",
        edits: [[
          "const part = length - done < sizeMax ? length - done : sizeMax;",
          "const part = sizeMax > 0 ? length - done : sizeMax;",
        ]],
      },
      {
        name: "blk-driver-slot-not-freed",
        about: "the slot of an answered request stays taken",
        edits: [["      this.#free[this.#freeCount++] = slot;\n      note", "      note"]],
        hangs: true,
      },
      {
        name: "blk-driver-sleeps-on-work",
        about: "what was used while the driver asked for interrupts waits for the next one",
        edits: [[
          "} while (this.#queue.enableInterrupts());",
          "} while (this.#queue.enableInterrupts() && this.index < 0);",
        ]],
      },
    ],
  },
  {
    file: "packages/blk/driver/blk_driver.ts",
    mutants: [
      {
        name: "blk-driver-range-unchecked",
        about: "the driver asks for sectors beyond the disk",
        edits: [["      sector + sectors > this.#info.sectors\n    ) {", "      false\n    ) {"]],
      },
      {
        name: "blk-driver-read-only-written",
        about: "the driver writes to a read-only disk",
        edits: [["if (this.#info.readonly) throw", "if (false) throw"]],
      },
      {
        name: "blk-driver-read-only-not-accepted",
        about: "a driver that is given other features does not accept RO",
        edits: [["& BLK_DRIVER_FEATURES) | VIRTIO_BLK_F_RO,", "& BLK_DRIVER_FEATURES),"]],
      },
    ],
  },
  {
    file: "packages/blk/driver/scheduler.ts",
    mutants: [
      {
        name: "blk-driver-in-flight-hangs",
        about: "what is in flight is never settled when the device is given up",
        edits: [["for (const queue of this.#queues) queue.abandon(reason);", ""]],
        hangs: true,
      },
    ],
  },
  {
    file: "packages/blk/driver/ranges.ts",
    mutants: [
      {
        name: "blk-driver-ranges-not-split",
        about: "the driver sends ranges that are longer than the device takes",
        edits: [[
          "const part = Math.min(limits.maxSectors, sectors - done);",
          "const part = sectors - done;",
        ]],
      },
    ],
  },
  {
    file: "packages/blk/driver/limits.ts",
    mutants: [
      {
        name: "blk-driver-mode-wrong",
        about: "the driver takes a device without CONFIG_WCE for writethrough",
        edits: [[
          ": session.has(VIRTIO_BLK_F_FLUSH),",
          ": session.has(VIRTIO_BLK_F_FLUSH) && false,",
        ]],
      },
      {
        name: "blk-driver-config-without-feature",
        about: "the driver reads num_queues though MQ was not negotiated",
        edits: [[
          "session.has(VIRTIO_BLK_F_MQ) ? Math.max(1, u16(at.num_queues)) : 1",
          "Math.max(1, u16(at.num_queues))",
        ]],
      },
    ],
  },
];
