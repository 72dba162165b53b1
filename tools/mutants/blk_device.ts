import type { MutatedFile } from "./mutant.ts";

/** The block device. */
export const BLK_DEVICE: readonly MutatedFile[] = [
  {
    file: "packages/blk/device.ts",
    mutants: [
      {
        name: "blk-writeback-not-negotiated",
        about: "the driver can choose the mode though CONFIG_WCE was not negotiated",
        edits: [[
          ` && bytes[0]! <= 1 &&
      hasFeature(this.#accepted, VIRTIO_BLK_F_CONFIG_WCE);`,
          " && bytes[0]! <= 1;",
        ]],
      },
      {
        name: "blk-writeback-any-value",
        about: "the driver can write any byte as the mode",
        edits: [[" && bytes[0]! <= 1 &&", " &&"]],
      },
      {
        name: "blk-writeback-without-flush",
        about: "the mode is writeback though the driver cannot flush",
        edits: [["(flush || !hasFeature(features, VIRTIO_BLK_F_CONFIG_WCE));", "(flush || true);"]],
      },
      {
        name: "blk-status-missing-accepted",
        about: "a request without a byte for the status is taken",
        edits: [[
          "if (!chain.writer.reserveTail(1)) {",
          "if (!chain.writer.reserveTail(1) && chain.id < 0) {",
        ]],
      },
      {
        name: "blk-mq-not-negotiated",
        about: "more than one queue is served though MQ was not negotiated",
        edits: [[
          "hasFeature(features, VIRTIO_BLK_F_MQ) ? this.queueSizes.length : 1;",
          "this.queueSizes.length;",
        ]],
      },
      {
        name: "blk-refresh-silent",
        about: "the driver sees the old capacity after the disk was resized",
        edits: [["      setCapacity(view, sectors);\n", ""]],
      },
    ],
  },
  {
    file: "packages/blk/negotiated.ts",
    mutants: [
      {
        name: "blk-no-flush-volatile",
        about: "writes are volatile though the driver accepted neither FLUSH nor CONFIG_WCE",
        edits: [[
          "else if (!this.flush || !writeback)",
          "else if (!writeback)",
        ]],
      },
    ],
  },
  {
    file: "packages/blk/execute.ts",
    mutants: [
      {
        name: "blk-read-only-written",
        about: "a read-only disk can be written",
        edits: [[
          "if (this.#settings.readonly || !this.#within(sector, length))",
          "if (!this.#within(sector, length))",
        ]],
      },
      {
        name: "blk-flush-not-negotiated",
        about: "a flush is done though FLUSH was not negotiated",
        edits: [["if (!this.negotiated.flush) return VIRTIO_BLK_S_UNSUPP;", ""]],
      },
      {
        name: "blk-writeback-field-ignored",
        about: "the mode that the driver chose is not looked at",
        edits: [[
          "(durability === Durability.field && this.#config.bytes[BlkConfigOffset.writeback] === 0)",
          "durability > Durability.field",
        ]],
      },
      {
        name: "blk-capacity-too-long",
        about: "a request may end one sector behind the disk",
        edits: [["<= this.sectors;", "<= this.sectors + 1;"]],
      },
      {
        name: "blk-capacity-too-short",
        about: "the last sector cannot be reached",
        edits: [["<= this.sectors;", "< this.sectors;"]],
      },
      {
        name: "blk-odd-length",
        about: "a request need not have whole sectors",
        edits: [["return length % SECTOR_SIZE === 0 && sector", "return sector"]],
      },
      {
        name: "blk-sector-high-half-ignored",
        about: "the upper half of the sector is not looked at",
        edits: [[
          "high === 0 ? low : low + high * 0x1_0000_0000;",
          "low;",
        ]],
      },
      {
        name: "blk-type-read-twice",
        about: "the type of a request is read again after the sector",
        edits: [[
          "switch (type) {\n      case VIRTIO_BLK_T_IN: {",
          "switch (view.getUint32(at, true)) {\n      case VIRTIO_BLK_T_IN: {",
        ]],
      },
      {
        name: "blk-unknown-type-ok",
        about: "an unknown type is answered with S_OK",
        edits: [[
          "default:\n        return VIRTIO_BLK_S_UNSUPP;",
          "default:\n        return VIRTIO_BLK_S_OK;",
        ]],
      },
      {
        name: "blk-error-unfilled",
        about: "the used length of a failed request does not reach its status",
        edits: [["writer.fill(0, writer.remaining);", ""]],
      },
      {
        name: "blk-discard-not-negotiated",
        about: "a discard is done though DISCARD was not negotiated",
        edits: [["if (!this.negotiated.discard) return VIRTIO_BLK_S_UNSUPP;", ""]],
      },
      {
        name: "blk-zeroes-not-negotiated",
        about: "zeroes are written though WRITE_ZEROES was not negotiated",
        edits: [["if (!this.negotiated.writeZeroes) return VIRTIO_BLK_S_UNSUPP;", ""]],
      },
      {
        name: "blk-discard-unmap-accepted",
        about: "a discard may have the unmap flag, which is reserved there",
        edits: [[
          "BlkConfigOffset.max_discard_sectors, 0);",
          "BlkConfigOffset.max_discard_sectors, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);",
        ]],
      },
      {
        name: "blk-id-short-accepted",
        about: "the id is sent into a buffer of any length",
        edits: [[
          "if (chain.writer.remaining !== VIRTIO_BLK_ID_BYTES) return VIRTIO_BLK_S_IOERR;",
          "",
        ]],
      },
    ],
  },
  {
    file: "packages/blk/synchronous.ts",
    mutants: [
      {
        name: "blk-flush-nothing",
        about: "a flush is answered and not done",
        edits: [[
          `    try {
      this.#flushBackend();
    } catch`,
          `    try {
      this.#backend.flush;
    } catch`,
        ]],
      },
      {
        name: "blk-write-through-volatile",
        about: "in writethrough mode a write is answered before it is durable",
        edits: [[
          "      if (this.#host.mustFlush()) this.#flushBackend();\n    } catch (error) {\n      return this.#failed(error);\n    }\n    this.#stats.writes++;",
          "    } catch (error) {\n      return this.#failed(error);\n    }\n    this.#stats.writes++;",
        ]],
      },
      {
        name: "blk-zeroes-volatile",
        about: "in writethrough mode zeroes are answered before they are durable",
        edits: [[
          "if (type !== VIRTIO_BLK_T_DISCARD && this.#host.mustFlush()) this.#flushBackend();",
          "",
        ]],
      },
      {
        name: "blk-cut-read-in-place",
        about: "a read into several buffers reads the same sectors into each",
        edits: [["      at += writer.length;\n", ""]],
      },
      {
        name: "blk-failed-read-leaks",
        about: "a read that failed half way leaves what the back end wrote there, or nothing",
        edits: [["writer.region!.bytes.fill(0, writer.offset, end);", ""]],
      },
      {
        name: "blk-unmap-ignored",
        about: "zeroes with unmap are written like those without",
        edits: [[
          "backend.writeZeroes!(position, length, ranges.unmap[i] === 1)",
          "backend.writeZeroes!(position, length, false)",
        ]],
      },
    ],
  },
  {
    file: "packages/blk/lifetime.ts",
    mutants: [
      {
        name: "blk-lifetime-reserved-sent",
        about: "reserved values of the lifetime are sent to the driver",
        edits: [[
          "return Number.isInteger(value) && value >= 0 && value <= max;",
          "return Number.isInteger(value) && value >= 0 && max >= 0;",
        ]],
      },
    ],
  },
  {
    file: "packages/blk/gather.ts",
    mutants: [
      {
        name: "blk-gathered-read-stays",
        about: "each part of a gathered read comes from the request's first sectors",
        edits: [["this.#backend.read(position + done,", "this.#backend.read(position,"]],
      },
      {
        name: "blk-gathered-write-stays",
        about: "each part of a gathered write goes to the request's first sectors",
        edits: [["this.#backend.write(position + done,", "this.#backend.write(position,"]],
      },
      {
        name: "blk-gathered-write-long",
        about: "a gathered write has the length of the buffer",
        edits: [["return length < BUFFER_SIZE ? this.#buffer.subarray(0, length) : ", "return "]],
      },
    ],
  },
  {
    file: "packages/blk/ranges.ts",
    mutants: [
      {
        name: "blk-range-flags-ignored",
        about: "reserved flags of a range are not looked at",
        edits: [["if ((set & ~flags) !== 0) return VIRTIO_BLK_S_UNSUPP;", ""]],
      },
      {
        name: "blk-range-beyond-disk",
        about: "a range may lie beyond the disk",
        edits: [[
          "if (sectors > maxSectors || sector + sectors > capacity)",
          "if (sectors > maxSectors)",
        ]],
      },
      {
        name: "blk-range-too-long",
        about: "a range may be longer than the device said",
        edits: [[
          "if (sectors > maxSectors || sector + sectors > capacity)",
          "if (sector + sectors > capacity)",
        ]],
      },
      {
        name: "blk-ranges-too-many",
        about: "a request may have more ranges than the device said",
        edits: [[" || count > maxSegments) return", ") return"]],
      },
      {
        name: "blk-range-cut-off",
        about: "a range that is not whole is left out in silence",
        edits: [[" || bytes % RANGE_SIZE !== 0 ||", " ||"]],
      },
    ],
  },
  {
    file: "packages/blk/later_request.ts",
    mutants: [
      {
        name: "later-writes-after-reset",
        about: "the data of a late read goes into memory though the device was reset",
        edits: [[
          `  #settled(): void {
    if (!this.#host.ready(this.chain!)) {`,
          `  #settled(): void {
    if (!this.#host.ready(this.chain!) && this.queue < 0) {`,
        ]],
      },
      {
        name: "later-not-waited-for",
        about: "the next life starts while writes of the one before are under way",
        edits: [["        this.#host.waitFor(result);\n", ""]],
      },
      {
        name: "later-flush-nothing",
        about: "a flush to an asynchronous back end is answered and not done",
        edits: [["return backend.flush();", "return FINISHED;"]],
      },
      {
        name: "later-write-through-volatile",
        about: "in writethrough mode a late write is answered before it is durable",
        edits: [[
          "return writes && this.#host.mustFlush() ? this.#flushOnce(backend) : FINISHED;",
          "return FINISHED;",
        ]],
      },
      {
        name: "later-unmap-ignored",
        about: "late zeroes with unmap are written like those without",
        edits: [["ranges.unmap[index] === 1", "ranges.unmap[index] === 2"]],
      },
      {
        name: "later-pieces-in-place",
        about: "every piece of a long request goes to the same sectors",
        edits: [["    this.#position += piece;\n", ""]],
      },
      {
        name: "later-error-lost",
        about: "a request whose back end failed is answered with S_OK",
        edits: [[
          "if (this.#host.ready(this.chain!)) this.#finish(VIRTIO_BLK_S_IOERR);",
          "if (this.#host.ready(this.chain!)) this.#finish(VIRTIO_BLK_S_OK);",
        ]],
      },
    ],
  },
  {
    file: "packages/blk/bounce.ts",
    mutants: [
      {
        name: "bounce-unbounded",
        about: "an asynchronous device takes as much memory as the driver asks for",
        edits: [["if (this.#allocated + size > this.#budget) return null;", ""]],
      },
      {
        name: "bounce-overtakes",
        about: "small requests go before large ones that wait",
        edits: [[
          "const buffer = this.#waiting.length === 0 ? this.#tryTake(length) : null;",
          "const buffer = this.#tryTake(length);",
        ]],
      },
    ],
  },
  {
    file: "packages/blk/options.ts",
    mutants: [
      {
        name: "blk-id-padded-with-spaces",
        about: "a short id is filled up with spaces",
        edits: [[
          "const bytes = new Uint8Array(VIRTIO_BLK_ID_BYTES);",
          "const bytes = new Uint8Array(VIRTIO_BLK_ID_BYTES).fill(0x20);",
        ]],
      },
      {
        name: "blk-queue-count-wrong",
        about: "num_queues counts one queue too few",
        edits: [[
          "view.setUint16(at.num_queues, queues, true);",
          "view.setUint16(at.num_queues, queues - 1, true);",
        ]],
      },
      {
        name: "blk-read-only-not-offered",
        about: "a read-only disk does not offer RO",
        edits: [["if (readonly) features |= VIRTIO_BLK_F_RO;", ""]],
      },
      {
        name: "blk-read-only-discards",
        about: "a read-only disk offers discard",
        edits: [[
          "if (!can || limits === false || readonly) return false;",
          "if (!can || limits === false) return false;",
        ]],
      },
      {
        name: "blk-capacity-high-half",
        about: "the capacity of large disks is cut to 32 bits",
        edits: [["Math.floor(sectors / 2 ** 32)", "0"]],
      },
      {
        name: "blk-wce-without-flush",
        about: "CONFIG_WCE is offered though FLUSH is not",
        edits: [[
          "    if (options.configWce ?? true) features |= VIRTIO_BLK_F_CONFIG_WCE;\n  } else if (options.configWce === true) {",
          "  }\n  if (options.configWce ?? true) features |= VIRTIO_BLK_F_CONFIG_WCE;\n  else if (cache === undefined) {",
        ]],
      },
    ],
  },
];
