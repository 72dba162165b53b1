import type { MutatedFile } from "./mutant.ts";

/** The control queue of the network device, and what it governs. */
export const NET_CONTROL: readonly MutatedFile[] = [
  {
    file: "packages/net/control/control.ts",
    mutants: [
      {
        name: "net-control-no-ack-silent",
        about: "a command without room for ack is not an error of the driver",
        edits: [["if (writer.remaining === 0) {", "if (writer.remaining === 0 && chain.id < 0) {"]],
      },
      {
        name: "net-control-extra-by-rx",
        about: "the extra receive modes are taken with VIRTIO_NET_F_CTRL_RX",
        edits: [["extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : ", ""]],
      },
      {
        name: "net-control-mac-not-told",
        about: "the device is not told of the address that the driver set",
        edits: [["    this.#host.setMac(mac);\n", ""]],
      },
      {
        name: "net-control-mac-not-negotiated",
        about: "the address can be set without VIRTIO_NET_F_CTRL_MAC_ADDR",
        edits: [[" || !this.#has(VIRTIO_NET_F_CTRL_MAC_ADDR)) {", ") {"]],
      },
      {
        name: "net-control-vlan-long",
        about: "bytes behind a VLAN are ignored",
        edits: [[
          "if (reader.remaining !== 2) return ERR;\n    return this.filter.setVlan",
          "if (reader.remaining < 2) return ERR;\n    return this.filter.setVlan",
        ]],
      },
      {
        name: "net-control-announce-ignored",
        about: "the acknowledgement of an announcement does not reach the device",
        edits: [["    this.#host.announced();\n", ""]],
      },
      {
        name: "net-control-pairs-not-negotiated",
        about: "the number of pairs can be set without VIRTIO_NET_F_MQ",
        edits: [["this.#has(VIRTIO_NET_F_MQ) && reader", "reader"]],
      },
      {
        name: "net-control-all-pairs",
        about: "a driver without MQ and RSS has all pairs, and its control queue behind them",
        edits: [["many ? this.#host.maxPairs : 1;", "many || !many ? this.#host.maxPairs : 1;"]],
      },
      {
        name: "net-control-reenable-receive",
        about: "a receive queue that is enabled again keeps its coalescing parameters",
        edits: [["this.coalescing.reenable(2 * pair);", "void pair;"]],
      },
      {
        name: "net-control-reenable-transmit",
        about: "a transmit queue that is enabled again keeps its coalescing parameters",
        edits: [["this.coalescing.reenable(2 * pair + 1);", "void pair;"]],
      },
      {
        name: "net-control-offloads-not-negotiated",
        about: "offloads can be switched on that were not negotiated",
        edits: [["if ((offloads & ~(this.#features & GUEST_OFFLOADS)) !== 0n) return ERR;", ""]],
      },
      {
        name: "net-control-offloads-low-half",
        about: "the upper half of the offloads is ignored",
        edits: [[
          "BigInt(low) | BigInt(reader.u32()) << 32n;",
          "BigInt(low) | BigInt(reader.u32()) * 0n;",
        ]],
      },
      {
        name: "net-control-coalescing-disabled-queue",
        about: "the coalescing parameters of a queue that is not enabled can be set",
        edits: [["|| !this.enabled(queue)) return ERR;", ") return ERR;"]],
      },
      {
        name: "net-control-coalescing-swapped",
        about: "TX_SET sets the receive queues",
        edits: [[
          "command === ctrl.VIRTIO_NET_CTRL_NOTF_COAL_TX_SET;",
          "command === ctrl.VIRTIO_NET_CTRL_NOTF_COAL_RX_SET;",
        ]],
      },
      {
        name: "net-control-success-counted-late",
        about: "the command that asks for statistics does not count itself as a success",
        edits: [
          ["    statistics.successes++;\n", ""],
          [
            "        statistics.write(writer);\n",
            "        statistics.write(writer);\n        statistics.successes++;\n",
          ],
        ],
      },
      {
        name: "net-control-restore-half",
        about: "a saved state whose last part is malformed is restored up to there",
        edits: [[
          "    this.#setOffloads(guestOffloads);\n    this.filter.restore",
          "    this.filter.restore",
        ], [
          "    const coalescing = ",
          "    this.#setOffloads(guestOffloads);\n    const coalescing = ",
        ]],
      },
    ],
  },
  {
    file: "packages/net/control/filter.ts",
    mutants: [
      {
        name: "net-filter-promisc-filtered",
        about: "promiscuous mode does not beat the other modes",
        edits: [["if ((modes & PROMISC) !== 0) return true;", ""]],
      },
      {
        name: "net-filter-nomulti-broadcast",
        about: "suppressing multicast suppresses broadcasts",
        edits: [["return (modes & NOBCAST) === 0;", "return (modes & (NOBCAST | NOMULTI)) === 0;"]],
      },
      {
        name: "net-filter-alluni-first",
        about: "all unicast beats the suppression of unicast",
        edits: [[
          "if ((modes & NOUNI) !== 0) return false;",
          "if ((modes & NOUNI) > (modes & ALLUNI) * 4) return false;",
        ]],
      },
      {
        name: "net-filter-vlan-priority",
        about: "the priority of a tag counts as part of its VLAN",
        edits: [["view.getUint16(14) & 0xfff)", "view.getUint16(14) & 0x1fff)"]],
      },
      {
        name: "net-filter-unknown-mac",
        about: "a driver that chose its own address does not receive what is sent to it",
        edits: [["(known ? 0 : ALLUNI)", "(known ? 0 : 0)"]],
      },
      {
        name: "net-filter-overflow-dropped",
        about: "addresses that do not fit are not received",
        edits: [["this.#open = this.#overflow | (", "this.#open = ("]],
      },
      {
        name: "net-filter-group-in-unicast",
        about: "a table of the wrong kind of addresses is taken",
        edits: [["if ((high & GROUP) !== group) return BAD;", ""]],
      },
      {
        name: "net-filter-table-in-place",
        about: "a bad table replaces half of the good one",
        edits: [["readTable(reader, this.#nextUnicast, 0)", "readTable(reader, this.#unicast, 0)"]],
      },
      {
        name: "net-filter-table-survives",
        about: "a reset leaves the multicast table as it is",
        edits: [["    this.#multicast.clear();\n    this.#vlans", "    this.#vlans"]],
      },
    ],
  },
  {
    file: "packages/net/control/mac_set.ts",
    mutants: [
      {
        name: "net-mac-set-half-compared",
        about: "addresses that end alike are the same",
        edits: [[
          "(this.#high[slot] !== high || this.#low[slot] !== low)",
          "this.#low[slot] !== low",
        ]],
      },
    ],
  },
  {
    file: "packages/net/control/steering.ts",
    mutants: [
      {
        name: "net-steering-resetting-rss",
        about: "the table leads to a queue that is being reset",
        edits: [["return this.#host.receives(pair) ? pair : NO_PAIR;", "return pair;"]],
      },
      {
        name: "net-steering-resetting-automatic",
        about: "automatic steering drops what goes to a queue that is being reset",
        edits: [["tried < pairs; tried++", "tried < 1; tried++"]],
      },
      {
        name: "net-steering-flows-kept",
        about: "flows lead to pairs that are not used any more",
        edits: [["    this.#flows.clear();\n    return true;", "    return true;"]],
      },
      {
        name: "net-steering-hash-of-last",
        about: "a frame without a hash has that of the configuration before",
        edits: [["    hash.value = 0;\n    hash.report = VIRTIO_NET_HASH_REPORT_NONE;\n", ""]],
      },
      {
        name: "net-steering-unclassified-first",
        about: "what has no hash goes to the first entry of the table",
        edits: [["          ? config.unclassified\n", "          ? config.table[0]!\n"]],
      },
    ],
  },
  {
    file: "packages/net/control/flow_table.ts",
    mutants: [
      {
        name: "net-flow-one-way",
        about: "a flow is not the same in both directions",
        edits: [["sum = source + destination | 0;", "sum = source + 3 * destination | 0;"]],
      },
      {
        name: "net-flow-fragment-ports",
        about: "the first fragment goes another way than the others",
        edits: [["if (!layout.fragment && (", "if (("]],
      },
    ],
  },
  {
    file: "packages/net/control/rss.ts",
    mutants: [
      {
        name: "net-rss-any-length",
        about: "the indirection table may have any length",
        edits: [[" || (mask & (mask + 1)) !== 0) return false;", ") return false;"]],
      },
      {
        name: "net-rss-pair-unchecked",
        about: "the table may name queues that there are not",
        edits: [[" || highest >= pairs) return false;", ") return false;"]],
      },
      {
        name: "net-rss-types-unchecked",
        about: "hash types that the device does not support are taken",
        edits: [["if ((this.hashTypes & ~this.#limits.hashTypes) !== 0) return false;", ""]],
      },
      {
        name: "net-rss-key-unchecked",
        about: "a key may be longer than the device says",
        edits: [["length > this.#limits.keySize || reader", "reader"]],
      },
      {
        name: "net-rss-reserved-ignored",
        about: "reserved fields of a hash configuration may be anything",
        edits: [["    if (reader.view.getUint32(reserved) !== 0 || reader", "    if (reader"]],
      },
    ],
  },
  {
    file: "packages/net/control/coalescing.ts",
    mutants: [
      {
        name: "net-coalescing-one-late",
        about: "a notification comes a packet late",
        edits: [["if (waiting >= maxPackets) {", "if (waiting > maxPackets) {"]],
      },
      {
        name: "net-coalescing-time-from-last",
        about: "time counts from the last packet",
        edits: [[
          "if (waiting > 0 && this.#timers[queue] === null) this",
          "if (this.forgetTimer(queue)) this",
        ], [
          "  #start(queue: number",
          "  forgetTimer(queue: number): boolean {\n    if (this.#timers[queue] !== null) this.#clock.clear(this.#timers[queue]);\n    return true;\n  }\n\n  #start(queue: number",
        ]],
      },
      {
        name: "net-coalescing-change-waits",
        about: "new parameters do not make a notification due",
        edits: [["    if (due) this.#due(queue);\n    else this", "    this"]],
      },
      {
        name: "net-coalescing-timer-after-reset",
        about: "what waited before a reset is notified after it",
        edits: [[
          "    if (timer !== null) this.#clock.clear(timer);\n    this.#timers[queue] = null;\n    const waited",
          "    const waited",
        ]],
      },
      {
        name: "net-coalescing-defaults-swapped",
        about: "a queue that is enabled again has the parameters of the other kind",
        edits: [["(queue & 1) === 1 ? 0 : 2;", "(queue & 1) === 1 ? 2 : 0;"], [
          "const from = defaultsOf(first);",
          "const from = defaultsOf(first + 1);",
        ]],
      },
    ],
  },
  {
    file: "packages/net/control/statistics.ts",
    mutants: [
      {
        name: "net-statistics-feature-ignored",
        about: "statistics can be had whose feature was not negotiated",
        edits: [[
          "if (needs !== 0n && (features & needs) === 0n) continue;",
          "if (features < 0n) continue;",
        ]],
      },
      {
        name: "net-statistics-any-queue",
        about: "a queue beyond the last can be asked about",
        edits: [[
          "if (queue > controlQueue) return false;",
          "if (queue > controlQueue + 1) return false;",
        ]],
      },
      {
        name: "net-statistics-size-without-header",
        about: "the size of a reply does not count its header",
        edits: [[
          "view.setUint16(6, size, true);",
          "view.setUint16(6, size - REPLY_HEADER_SIZE, true);",
        ]],
      },
      {
        name: "net-statistics-unbounded",
        about: "a command may ask for any number of entries",
        edits: [["entries > ENTRIES_PER_QUEUE * (controlQueue + 1)", "entries < 0"]],
      },
    ],
  },
];
