import type { MutatedFile } from "./mutant.ts";

/** The network driver. */
export const NET_DRIVER: readonly MutatedFile[] = [
  {
    file: "packages/net/driver/receive_queue.ts",
    mutants: [
      {
        name: "net-driver-short-header",
        about: "a frame may be shorter than its header",
        edits: [["if (used < headerSize) {", "if (used < 0) {"]],
      },
      {
        name: "net-driver-no-buffers",
        about: "a frame of no buffers is one of one",
        edits: [["if (parts === 0)", "if (parts < 0)"]],
      },
      {
        name: "net-driver-half-full",
        about: "a buffer before the last one need not be full",
        edits: [["      if (!full) {\n", "      if (full && used < 0) {\n"]],
      },
      {
        name: "net-driver-num-buffers-always",
        about: "num_buffers counts although nothing is merged",
        edits: [["const parts = merge ?", "const parts = headerSize > 0 ?"]],
      },
      {
        name: "net-driver-join-overlaps",
        about: "the second buffer of a frame is copied over the first",
        edits: [["buffer, length, more);", "buffer, 0, more);"]],
      },
      {
        name: "net-driver-too-long",
        about: "a frame that is longer than any is believed to fit",
        edits: [["fits &&= length + more <= buffer.length;", "fits &&= more <= buffer.length;"]],
      },
      {
        name: "net-driver-offloads-unchecked",
        about: "the driver takes what it did not negotiate",
        edits: [[
          "checkHeader(frame, layout, offloads, true)",
          "checkHeader(frame, layout, Offload.all, true)",
        ]],
      },
      {
        name: "net-driver-rsc-offsets",
        about: "csum_start is used though it counts segments",
        edits: [["(flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0", "(flags & 0x100) !== 0"]],
      },
      {
        name: "net-driver-valid-unasked",
        about: "a checksum is believed without VIRTIO_NET_F_GUEST_CSUM",
        edits: [["if ((offloads & Offload.csum) !== 0) frame.flags", "frame.flags"]],
      },
      {
        name: "net-driver-hash-unchecked",
        about: "a hash of a type that the device does not have is believed",
        edits: [["if ((this.#setup.hashTypes >>> (report - 1) & 1) === 0) return;", ""]],
      },
      {
        name: "net-driver-short-queue",
        about: "buffers of a short queue are not enough for a packet of the MTU's size",
        edits: [[
          "Math.max(setup.bufferSize, Math.ceil(whole / this.#count))",
          "setup.bufferSize",
        ]],
      },
      {
        name: "net-driver-refill-at-once",
        about: "every buffer goes back by itself",
        edits: [[
          "this.#spareCount << 2 >= this.#count",
          "this.#spareCount > 0 && this.#count > 0",
        ]],
      },
      {
        name: "net-driver-restart-loses",
        about: "buffers that were in a queue that is reset are lost",
        edits: [["for (const buffer of lost) this.#spare[this.#spareCount++] = buffer;", ""]],
        first: ["tests/lifecycle"],
      },
    ],
  },
  {
    file: "packages/net/driver/transmit_queue.ts",
    mutants: [
      {
        name: "net-driver-num-buffers-left",
        about: "num_buffers of a sent frame is what lay there",
        edits: [["view.setUint16(at + NetHeaderOffset.num_buffers, 0, true);", ""]],
      },
      {
        name: "net-driver-mtu-of-gso-ecn",
        about: "a frame with nothing but ECN set may be longer than the MTU",
        edits: [[
          "const gso = (frame.gsoType & ~VIRTIO_NET_HDR_GSO_ECN)",
          "const gso = frame.gsoType",
        ]],
      },
      {
        name: "net-driver-ecn-forgotten",
        about: "segments with CWR are asked for without ECN",
        edits: [["header.gsoType |= VIRTIO_NET_HDR_GSO_ECN;", ""]],
      },
      {
        name: "net-driver-hdr-len-believed",
        about: "hdr_len is 0 where nobody looked at the headers",
        edits: [[
          "    header.headerLength = headersAtMost(length);\n    header.gsoSize",
          "    header.headerLength = 0;\n    header.gsoSize",
        ]],
      },
      {
        name: "net-driver-second-block",
        about: "the second block of a frame gets the bytes of the first",
        edits: [["copyFrom(at, bytes, done, part)", "copyFrom(at, bytes, 0, part)"]],
      },
      {
        name: "net-driver-block-not-freed",
        about: "only the first block of a frame is freed",
        edits: [["block >= 0; block = this.#links[block]! - 1", "block >= 0; block = -1"]],
        hangs: true,
        first: ["packages/net/driver"],
      },
      {
        name: "net-driver-transmit-interrupts",
        about: "the driver is told of every frame that it sent",
        edits: [[
          "    this.#queue.disableInterrupts();\n  }\n\n  /** The queue was reset",
          "  }\n\n  /** The queue was reset",
        ]],
      },
    ],
  },
  {
    file: "packages/net/driver/room.ts",
    mutants: [
      {
        name: "net-driver-sleeps-on-room",
        about: "room that came while the driver asked for interrupts is not seen",
        edits: [[
          "if (!queue.enableInterrupts()) return;",
          "if (!queue.enableInterrupts() || pair >= 0) return;",
        ]],
        hangs: true,
        first: ["packages/net/driver", "tests/net_matrix_test.ts"],
      },
    ],
  },
  {
    file: "packages/net/driver/receive_pump.ts",
    mutants: [
      {
        name: "net-driver-sleeps-on-frames",
        about: "frames that came while the driver asked for interrupts wait for the next one",
        edits: [[
          "done = !queue.enableInterrupts();",
          "done = queue.enableInterrupts() || pair >= 0;",
        ]],
        first: ["packages/net/driver"],
      },
      {
        name: "net-driver-handles-two-at-once",
        about: "a frame is overwritten by the next one while it is being handled",
        edits: [[
          "if (this.#stopped || this.#collecting[pair] === 1) return;",
          "if (this.#stopped) return;",
        ]],
        first: ["packages/net/driver"],
      },
      {
        name: "net-driver-starves-others",
        about: "a device that never stops sending keeps the event loop",
        edits: [[
          "while (this.#frames < FRAMES_PER_TURN) {",
          "while (this.#frames < FRAMES_PER_TURN * 2 ** 30) {",
        ]],
        hangs: true,
        first: ["packages/net/driver"],
      },
    ],
  },
  {
    file: "packages/net/driver/net_driver.ts",
    mutants: [
      {
        name: "net-driver-queue-too-far",
        about: "frames are sent through queues that are not in use",
        edits: [[
          "if (queue === undefined || pair >= this.control.transmitPairs) {",
          "if (queue === undefined) {",
        ]],
      },
      {
        name: "net-driver-keeps-device",
        about: "a device that broke a rule is used on",
        edits: [[
          "if (error instanceof VirtqueueError) this.#giveUp(error);",
          "if (error instanceof VirtqueueError && this.#broken !== null) this.#giveUp(error);",
        ]],
      },
    ],
  },
  {
    file: "packages/net/driver/control.ts",
    mutants: [
      {
        name: "net-driver-queues-during-command",
        about: "frames are sent through a queue that the device was told to forget",
        edits: [["this.#transmitPairs = Math.min(this.#transmitPairs, transmit);", ""]],
      },
      {
        name: "net-driver-mac-without-rx",
        about: "the address is set without VIRTIO_NET_F_CTRL_RX",
        edits: [[
          '    // 5.1.9.5.2.2: no command of this class without the first one, whatever else there is.\n    this.#needs(VIRTIO_NET_F_CTRL_RX, "VIRTIO_NET_F_CTRL_RX");\n',
          "",
        ]],
      },
      {
        name: "net-driver-offloads-beyond",
        about: "offloads that were not negotiated are switched on",
        edits: [["if ((offloads & ~possible) !== 0n) {", "if (offloads < 0n) {"]],
      },
    ],
  },
  {
    file: "packages/net/driver/command_data.ts",
    mutants: [
      {
        name: "net-driver-hash-types-beyond",
        about: "hash types that the device does not have are asked for",
        edits: [["|| (types & ~hashTypes) !== 0", ""]],
      },
    ],
  },
  {
    file: "packages/net/driver/control_queue.ts",
    mutants: [
      {
        name: "net-driver-ack-not-covered",
        about: "an ack that the used length does not cover is believed",
        edits: [[
          "used >= 1 ? memory.readU8(at) : NO_ACK",
          "used >= 0 ? VIRTIO_NET_OK : memory.readU8(at)",
        ]],
      },
      {
        name: "net-driver-command-lost",
        about: "a command in a queue that is reset is never answered",
        edits: [[
          "if (lost.length > 0 && command.address >= 0) this.#add(command);\n      else this.#start();",
          "this.#start();",
        ]],
        first: ["packages/net/driver", "tests/lifecycle"],
      },
    ],
  },
  {
    file: "packages/net/driver/info.ts",
    mutants: [
      {
        name: "net-driver-link-bits",
        about: "any bit of status means that the link is up",
        edits: [["linkUp: (status & VIRTIO_NET_S_LINK_UP) !== 0,", "linkUp: status !== 0,"]],
      },
      {
        name: "net-driver-speed-believed",
        about: "a speed beyond the standard's is believed",
        edits: [["speed <= 0x7fff_ffff ? speed : null", "speed < 0xffff_ffff ? speed : null"]],
      },
    ],
  },
  {
    file: "packages/net/driver/statistics.ts",
    mutants: [
      {
        name: "net-driver-statistics-size",
        about: "a reply of statistics may have no size",
        edits: [["if (size < REPLY_HEADER_SIZE || at + size", "if (at + size"]],
        hangs: true,
        first: ["tests/hostile/net_driver_test.ts"],
      },
    ],
  },
  {
    file: "packages/net/driver/announcer.ts",
    mutants: [
      {
        name: "net-driver-announces-for-ever",
        about: "a device that asks for an announcement without end gets it",
        edits: [[
          "if (done && this.#again) this.#look();",
          "if (done || this.#again) this.#look();",
        ]],
        hangs: true,
        first: ["tests/hostile/net_driver_test.ts"],
      },
    ],
  },
];
