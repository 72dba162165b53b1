import type { MutatedFile } from "./mutant.ts";

/** Both halves of the PCI transport. */
export const PCI: readonly MutatedFile[] = [
  {
    file: "packages/transport/pci/transport.ts",
    mutants: [
      {
        name: "pci-isr-not-cleared",
        about: "reading ISR status does not clear it",
        edits: [[
          `    this.#isr = 0;
    this.#updateLine();
    return isr;`,
          "    return isr;",
        ]],
        first: ["packages/transport/pci/interrupts_test.ts"],
      },
      {
        name: "pci-isr-queue-bit-wrong",
        about: "a used buffer notification sets the configuration bit of ISR status",
        edits: [[
          "this.#isr |= reg.VIRTIO_PCI_ISR_QUEUE;",
          "this.#isr |= reg.VIRTIO_PCI_ISR_CONFIG;",
        ]],
      },
      {
        name: "pci-isr-config-missing",
        about: "a configuration change notification does not set its bit of ISR status",
        edits: [["this.#isr |= reg.VIRTIO_PCI_ISR_CONFIG;", ""]],
      },
      {
        name: "pci-isr-survives-reset",
        about: "ISR status survives a reset of the device",
        edits: [[
          `    this.#msix?.clearPending();
    this.#isr = 0;`,
          "    this.#msix?.clearPending();",
        ]],
      },
      {
        name: "pci-intx-disable-ignored",
        about: "the Interrupt Disable bit of Command is not looked at",
        edits: [[
          "const asserted = pending && (config.command & reg.PCI_COMMAND_INTX_DISABLE) === 0;",
          "const asserted = pending;",
        ]],
      },
      {
        name: "pci-intx-with-msix",
        about: "the interrupt line is used though MSI-X is enabled",
        edits: [[
          "const pending = this.#isr !== 0 && !(this.#msix !== null && this.#msix.enabled);",
          "const pending = this.#isr !== 0;",
        ]],
      },
      {
        name: "pci-kick-high-half-taken",
        about: "the upper half of a kick with data makes another queue number",
        edits: [["this.#notify(value & 0xffff)", "this.#notify(value >>> 0)"]],
      },
      {
        name: "pci-notif-config-data-ignored",
        about: "a kick is taken for a queue number though NOTIF_CONFIG_DATA was negotiated",
        edits: [["this.#notifConfigData ? this.#queueByNotifyData.get(value) : value", "value"]],
      },
      {
        name: "pci-notif-config-data-not-negotiated",
        about: "a kick is taken for notification data though NOTIF_CONFIG_DATA was not negotiated",
        edits: [[
          "this.#notifConfigData ? this.#queueByNotifyData.get(value) : value",
          "this.#queueByNotifyData.get(value)",
        ]],
      },
      {
        name: "pci-reset-keeps-vectors",
        about: "vectors and selectors survive a reset of the device",
        edits: [["    this.#common.reset();\n", ""]],
      },
      {
        name: "pci-bus-master-ignored",
        about: "messages go out though the function may not master the bus",
        edits: [[
          ` === 0 &&
          (this.#config.command & reg.PCI_COMMAND_MASTER) !== 0,`,
          " === 0,",
        ]],
      },
    ],
  },
  {
    file: "packages/transport/pci/common_config.ts",
    mutants: [
      {
        name: "pci-no-vector-not-read-back",
        about: "a vector that does not exist reads back as if it were mapped",
        edits: [["return vector < this.#vectorCount ? vector : NO_VECTOR;", "return vector;"]],
      },
      {
        name: "pci-vector-off-by-one",
        about: "the vector behind the table can be mapped",
        edits: [[
          "return vector < this.#vectorCount ? vector : NO_VECTOR;",
          "return vector <= this.#vectorCount ? vector : NO_VECTOR;",
        ]],
      },
      {
        name: "pci-queue-reset-keeps-vector",
        about: "a queue that was reset keeps its vector",
        edits: [["this.#queueVectors[index] = NO_VECTOR;", ""]],
      },
      {
        name: "pci-queue-enable-any",
        about: "any value written to queue_enable enables the queue",
        edits: [["if (value === 1) this.#enableQueue(index);", "this.#enableQueue(index);"]],
      },
      {
        name: "pci-queue-select-wraps",
        about: "queue_select beyond the queues selects one of them",
        edits: [[
          "return this.#state.queues[this.#queueSelect];",
          "return this.#state.queues[this.#queueSelect % this.#state.queues.length];",
        ]],
      },
      {
        name: "pci-queue-size-any",
        about: "a split queue can be given any size",
        edits: [[
          `    return value !== 0 &&
      (`,
          `    return value !== 0 ||
      (`,
        ]],
      },
      {
        name: "pci-generation-not-counted",
        about: "config_generation stays when the configuration is read after a change",
        edits: [[
          `    this.#generationSeen = this.#state.configGeneration;
    this.#generation = (this.#generation + 1) & 0xff;`,
          "    this.#generationSeen = this.#state.configGeneration;",
        ]],
      },
      {
        name: "pci-generation-nine-bits",
        about: "config_generation overflows into queue_select",
        edits: [[
          "return changed ? (this.#generation + 1) & 0xff : this.#generation;",
          "return changed ? this.#generation + 1 : this.#generation;",
        ]],
      },
      {
        name: "pci-notify-data-not-negotiated",
        about: "queue_notif_config_data is there though it was not negotiated",
        edits: [[
          "if (!hasFeature(this.#state.features, VIRTIO_F_NOTIF_CONFIG_DATA)) return 0;",
          "",
        ]],
      },
      {
        name: "pci-restore-vector-unchecked",
        about: "a restored vector may lie beyond the table",
        edits: [["if (vector !== NO_VECTOR && vector >= this.#vectorCount) {", "if (false) {"]],
      },
      {
        name: "pci-narrow-writes-taken",
        about: "a status that is written 16 bits wide is taken",
        edits: [[
          "else if (size === 2) this.#write16(offset, value & 0xffff);",
          "else if (size === 2 && offset !== CommonCfg.deviceStatus) this.#write16(offset, value & 0xffff);",
        ]],
      },
    ],
  },
  {
    file: "packages/transport/pci/msix.ts",
    mutants: [
      {
        name: "msix-vector-mask-ignored",
        about: "a masked vector sends its message",
        edits: [[
          "if (this.#open && (this.#table[4 * vector + VECTOR_CONTROL]! & MASKED) === 0) {",
          "if (this.#open) {",
        ]],
      },
      {
        name: "msix-function-mask-ignored",
        about: "the function mask is not looked at",
        edits: [["this.#open = enabled && open;", "this.#open = enabled;"]],
      },
      {
        name: "msix-pending-lost",
        about: "an event of a masked vector is forgotten",
        edits: [["this.#pending[vector >>> 5]! |= 1 << (vector & 31);", ""]],
      },
      {
        name: "msix-unmask-silent",
        about: "a pending message does not go out when its vector is unmasked",
        edits: [["if (field === VECTOR_CONTROL) this.#deliver(word >>> 2);", ""]],
      },
      {
        name: "msix-function-unmask-silent",
        about: "pending messages do not go out when the function is unmasked",
        edits: [["else if (this.#open) this.#deliverAll();", ""]],
      },
      {
        name: "msix-pending-not-cleared",
        about: "a pending bit stays when its message went out",
        edits: [["this.#pending[word]! &= ~bit;", ""]],
      },
      {
        name: "msix-starts-unmasked",
        about: "vectors are not masked after a reset of the bus",
        edits: [["this.#table[i] = MASKED;", "this.#table[i] = 0;"]],
      },
      {
        name: "msix-upper-address-lost",
        about: "messages go to the lower 4 GiB",
        edits: [[
          "this.#send(this.#table[entry]!, this.#table[entry + 1]!,",
          "this.#send(this.#table[entry]!, 0,",
        ]],
      },
    ],
  },
  {
    file: "packages/transport/pci/config_space.ts",
    mutants: [
      {
        name: "bar-size-doubled",
        about: "a BAR that is sized looks twice as large",
        edits: [[
          "this.#mask.setUint32(offset, -bar.size >>> 0, true);",
          "this.#mask.setUint32(offset, (-2 * bar.size) >>> 0, true);",
        ]],
      },
      {
        name: "bar-upper-half-fixed",
        about: "the upper half of a 64-bit BAR cannot be written",
        edits: [[
          "this.#mask.setUint32(offset + 4, Math.floor(-bar.size / 0x1_0000_0000) >>> 0, true);",
          "",
        ]],
      },
      {
        name: "bar-upper-half-ignored",
        about: "a 64-bit BAR decodes below 4 GiB",
        edits: [[
          "const high = bar.is64 ? this.view.getUint32(offset + 4, true) : 0;",
          "const high = 0;",
        ]],
      },
      {
        name: "bar-decodes-always",
        about: "a BAR decodes though its space is switched off in Command",
        edits: [["if ((this.command & enable) === 0) return null;", ""]],
      },
      {
        name: "bar-decodes-while-sized",
        about: "a BAR that is being sized decodes",
        edits: [[" || last === 0xffff_ffff ||", " ||"]],
      },
      {
        name: "config-space-read-only-written",
        about: "read-only bits of configuration space can be written",
        edits: [[
          "this.bytes[at] = (this.bytes[at]! & ~mask) | ((value >>> (8 * i)) & mask);",
          "this.bytes[at] = value >>> (8 * i);",
        ]],
      },
    ],
  },
  {
    file: "packages/transport/pci/config_window.ts",
    mutants: [
      {
        name: "window-unaligned",
        about: "the configuration access window takes unaligned offsets",
        edits: [["return this.#offset % length === 0 ? length : 0;", "return length;"]],
      },
      {
        name: "window-any-length",
        about: "the configuration access window takes any other length for 4",
        edits: [[
          "if (length !== 1 && length !== 2 && length !== 4) return 0;",
          "if (length !== 1 && length !== 2 && length !== 4) return 4;",
        ]],
      },
    ],
  },
  {
    file: "packages/transport/pci/structures.ts",
    mutants: [
      {
        name: "notify-structure-short",
        about: "the last queue's kick with data lies behind the notification structure",
        edits: [[
          "return Math.max(0, queues - 1) * multiplier + 4;",
          "return Math.max(0, queues - 1) * multiplier + 2;",
        ]],
      },
      {
        name: "notify-multiplier-unchecked",
        about: "notify_off_multiplier may be any number",
        edits: [["if (multiplier !== 0 && !power) {", "if (false) {"]],
      },
    ],
  },
  {
    file: "packages/transport/pci/capabilities.ts",
    mutants: [
      {
        name: "notify-multiplier-not-shown",
        about: "the notification capability says 0 for notify_off_multiplier",
        edits: [[
          "setUint32(reg.PciCap.notifyOffMultiplier, notifyMultiplier, true);",
          "setUint32(reg.PciCap.notifyOffMultiplier, notifyMultiplier * 0, true);",
        ]],
      },
      {
        name: "capability-length-wrong",
        about: "cap_len leaves the fields behind the structure out",
        edits: [[
          "bytes[reg.PciCap.len] = bytes.length;",
          "bytes[reg.PciCap.len] = reg.PciCap.size;",
        ]],
      },
    ],
  },
  {
    file: "packages/transport/pci/driver_transport.ts",
    mutants: [
      {
        name: "pci-driver-multiplier-ignored",
        about: "the driver kicks without notify_off_multiplier",
        edits: [[
          "this.#read(CommonCfg.queueNotifyOff, 2) * multiplier",
          "this.#read(CommonCfg.queueNotifyOff, 2) * (multiplier && 1)",
        ]],
      },
      {
        name: "pci-driver-doorbell-unchecked",
        about: "the driver kicks outside of the notification structure",
        edits: [["if (at + width > length) {", "if (false) {"]],
      },
      {
        name: "pci-driver-vector-not-read-back",
        about: "the driver does not look whether its vector was mapped",
        edits: [["if (this.#read(CommonCfg.queueMsixVector, 2) !== vector) continue;", ""]],
      },
      {
        name: "pci-driver-shared-vector",
        about: "with a shared vector only the last queue is looked at",
        edits: [[
          "before === -1 || before === index ? index : -2;",
          "before === -1 || before !== index ? index : index;",
        ]],
      },
      {
        name: "pci-driver-isr-config-ignored",
        about: "the driver does not look at the configuration bit of ISR status",
        edits: [["if ((isr & reg.VIRTIO_PCI_ISR_CONFIG) !== 0) this.interrupts?.config();", ""]],
      },
      {
        name: "pci-driver-upper-addresses-lost",
        about: "the driver writes the lower halves of queue addresses only",
        edits: [["this.#write(offset + 4, 4, highHalf(address));", "highHalf(address);"]],
      },
      {
        name: "pci-driver-feature-words",
        about: "the driver accepts features of the lower 64 bits only",
        edits: [[
          `    for (let word = 0; word < 4; word++) {
      this.#write(CommonCfg.driverFeatureSelect`,
          `    for (let word = 0; word < 2; word++) {
      this.#write(CommonCfg.driverFeatureSelect`,
        ]],
      },
    ],
  },
  {
    file: "packages/transport/pci/probe.ts",
    mutants: [
      {
        name: "probe-capability-loop",
        about: "a capability list that runs in a circle is followed for ever",
        edits: [["while (offset >= 0x40 && !seen.has(offset)) {", "while (offset >= 0x40) {"]],
        hangs: true,
      },
      {
        name: "probe-reserved-bar",
        about: "a structure in a reserved BAR is taken",
        edits: [["cap.bar > 5 || ", ""]],
      },
    ],
  },
];
