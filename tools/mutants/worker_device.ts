import type { MutatedFile } from "./mutant.ts";

/** Devices in workers. */
export const WORKER_DEVICE: readonly MutatedFile[] = [
  {
    file: "packages/worker/words.ts",
    mutants: [
      {
        name: "worker-kick-not-counted",
        about: "a kick wakes the worker, but says of no queue that it was kicked",
        edits: [["    this.words[Word.kicks + queue]!++;\n", ""]],
        hangs: true,
        first: ["packages/worker/sleeping_test.ts"],
      },
      {
        name: "worker-interrupt-not-counted",
        about: "an interrupt wakes the transport's side, but says of no queue",
        edits: [["    this.words[BellWord.interrupts + queue]!++;\n", ""]],
        hangs: true,
        first: ["packages/worker/worker_device_test.ts"],
      },
      {
        name: "worker-bell-silent",
        about: "a transport's side that sleeps is not woken",
        edits: [["      Atomics.notify(words, BellWord.event);\n", ""]],
        hangs: true,
        first: ["packages/worker/worker_device_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/spin.ts",
    mutants: [
      {
        name: "worker-spin-never-longer",
        about: "who looked in vain often enough never looks for long again",
        edits: [["if (++this.#vain % PROBE === 0)", "if (++this.#vain < 0)"]],
        first: ["packages/worker/spin_test.ts"],
      },
      {
        name: "worker-spin-always-long",
        about: "who looks in vain goes on looking for long",
        edits: [["Math.max(this.#longest / 64, this.#now / 2)", "this.#longest"]],
        first: ["packages/worker/spin_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/worker_device.ts",
    mutants: [
      {
        name: "worker-config-late",
        about: "a driver that looks into the ring by itself finds the configuration of before",
        edits: [[
          "    this.#tidings.ask();\n    return this.#config!;",
          "    return this.#config!;",
        ]],
        first: ["packages/worker/config_test.ts"],
      },
      {
        name: "worker-config-not-at-any-time",
        about: "what a device lets its driver write at any time, it may not in a worker",
        edits: [["      description.anytime ?? undefined,\n", ""]],
        first: ["packages/worker/config_test.ts"],
      },
      {
        name: "worker-config-shown-suspended",
        about: "a write of the driver shows what else the device changed while it is suspended",
        edits: [[
          "config.subarray(offset, offset + bytes.length), offset);",
          "config);",
        ]],
        first: ["packages/worker/config_test.ts"],
      },
      {
        name: "worker-death-not-told",
        about: "a device whose worker died does not ask for a reset",
        edits: [[
          "    this.#settle();\n    this.#crew.activation?.fail(error);\n",
          "    this.#settle();\n",
        ]],
        hangs: true,
        first: ["packages/worker/worker_device_test.ts"],
      },
      {
        name: "worker-configured-not-kept",
        about: "what the driver configures is not kept for a worker that takes over",
        edits: [["    this.#keepState();\n    return false;", "    return false;"]],
        first: ["packages/worker/state_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/tidings.ts",
    mutants: [
      {
        name: "worker-written-not-told",
        about: "the memory's tracker is not told what a worker wrote",
        edits: [["      if (!any) crew.tellWritten(activation.memory);\n", ""]],
        first: ["packages/worker/worker_device_test.ts"],
      },
      {
        name: "worker-config-stale",
        about: "what the device changes in its configuration is not seen",
        edits: [[
          "      this.#config?.update((view) => new Uint8Array(view.buffer).set(config));\n",
          "",
        ]],
        first: ["packages/worker/sleeping_test.ts"],
      },
      {
        name: "worker-failure-not-told",
        about: "a device that asks for a reset in its worker does not ask its driver",
        edits: [[
          "      crew.activation?.fail(errorFrom(failure.error));\n",
          "",
        ]],
        first: ["packages/worker/sleeping_test.ts"],
      },
      {
        name: "worker-written-unasked",
        about: "what was written without an interrupt is not told to the memory's tracker",
        edits: [[
          "    this.#written = written;\n    this.tellWritten();",
          "    this.#written = written;",
        ]],
        first: ["packages/worker/written_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/crew.ts",
    mutants: [
      {
        name: "worker-replaced-by-anything",
        about: "a device is replaced by one of another kind",
        edits: [["    if (!same) {", "    if (!same && mine.type < 0) {"]],
        first: ["packages/worker/state_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/replace.ts",
    mutants: [
      {
        name: "worker-replaced-forgets",
        about: "the new device does not get the old one's state",
        edits: [["  if (saved !== null) device.restore(saved);\n", ""]],
        first: ["packages/worker/state_test.ts"],
      },
      {
        name: "worker-replaced-unkicked",
        about: "what was kicked while the device was replaced waits for the next kick",
        edits: [["    crew.of(index).link.kick(index);\n", ""]],
        hangs: true,
        first: ["packages/worker/worker_device_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/takeover.ts",
    mutants: [
      {
        name: "worker-takeover-forgets",
        about: "a worker that takes over does not get the device's state",
        edits: [['    if (crew.saved !== null) fresh.call("restore", crew.saved);\n', ""]],
        first: ["packages/worker/state_test.ts"],
      },
      {
        name: "worker-takeover-unkicked",
        about: "a worker that takes over does not look at its queues",
        edits: [["        fresh.link.kick(queue);\n", ""]],
        hangs: true,
        first: ["packages/worker/state_test.ts"],
      },
      {
        name: "worker-takeover-not-recovered",
        about: "a worker that takes over begins where the dead one began",
        edits: [[
          "recover(memory, given, features);",
          "recover(memory, given, features) && given;",
        ]],
        hangs: true,
        first: ["packages/worker/death_test.ts"],
      },
      {
        name: "worker-takeover-any-device",
        about: "a device whose requests must not be done twice is taken over",
        edits: [["if (!crew.description.repeatable) {", "if (crew.description.type < 0) {"]],
        hangs: true,
        first: ["packages/worker/death_test.ts"],
      },
      {
        name: "worker-takeover-for-ever",
        about: "requests that end every worker are tried without end",
        edits: [["if (++this.#strikes > MOST_STRIKES)", "if (++this.#strikes > 9)"]],
        first: ["packages/worker/death_test.ts"],
      },
      {
        name: "worker-takeover-strikes-stay",
        about: "workers that did something in between count as if they had not",
        edits: [[" this.#strikes = 0;\n    ", " this.#strikes += 0;\n    "]],
        first: ["packages/worker/death_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/journal.ts",
    mutants: [
      {
        name: "worker-journal-published-twice",
        about: "what was published just before a death is done again",
        edits: [[
          "state, packed, at & 0xffff, at >>> 16)) at = after;",
          "state, packed, at & 0xffff, at >>> 16)) at |= 0;",
        ]],
        first: ["packages/worker/journal_test.ts"],
      },
      {
        name: "worker-journal-not-taken-back",
        about: "descriptors that a dead worker had begun to overwrite stay overwritten",
        edits: [["      else if (packed) this.#takeBack(memory, state);\n", ""]],
        first: ["packages/worker/journal_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/device_host.ts",
    mutants: [
      {
        name: "worker-written-at-the-next-kick",
        about: "what is written later, without an interrupt, is told when the driver kicks again",
        edits: [["          queueMicrotask(this.#tellSoon);\n", ""]],
        first: ["packages/worker/written_test.ts"],
      },
      {
        name: "worker-queues-without-end",
        about: "a device has more queues than there are counters",
        edits: [["    if (count > MAX_QUEUES) {", "    if (count > 2 * MAX_QUEUES) {"]],
        first: ["packages/worker/many_queues_test.ts"],
      },
      {
        name: "worker-memory-not-shared",
        about: "memory that a device shows, and that cannot be shared, is taken for shared",
        edits: [["if (!(bytes.buffer instanceof SharedArrayBuffer)) {", "if (bytes.length < 0) {"]],
        first: ["packages/worker/config_test.ts"],
      },
      {
        name: "worker-news-by-chance",
        about: "a driver that sleeps is not woken for failures and configuration changes",
        edits: [["Word.news, 1);\n    this.#bell.ring();", "Word.news, 1);"]],
        first: ["packages/worker/sleeping_test.ts"],
      },
    ],
  },
  {
    file: "packages/worker/call.ts",
    mutants: [
      {
        name: "worker-call-cut",
        about: "an answer that is longer than the area ends with its first part",
        edits: [[
          "const last = at + area.length >= bytes.length;",
          "const last = bytes.length >= 0;",
        ]],
        first: ["packages/worker/state_test.ts"],
      },
    ],
  },
];
