import type { MutatedFile } from "./mutant.ts";

const DEATH = ["packages/vhost-user/backend/worker_death_test.ts"];
const HOSTILE = ["tests/hostile/vhost_user_alone_test.ts"];

/** Devices served by vhost-user. */
export const VHOST_USER_BACKEND: readonly MutatedFile[] = [
  {
    file: "packages/vhost-user/backend/memory_table.ts",
    mutants: [
      {
        name: "vhost-table-overlap-by-user",
        about: "two regions may have the same addresses in the front end",
        edits: [['    checkOverlap(all, "user");\n', ""]],
        first: HOSTILE,
      },
      {
        name: "vhost-table-longer-than-file",
        about: "a region may be longer than its file",
        edits: [["if (!(file.size >= offset + size)) {", "if (!(file.size >= offset)) {"]],
        first: HOSTILE,
      },
      {
        name: "vhost-table-not-sealed",
        about: "a front end may make its file shorter",
        edits: [["    file.addSeals(Seal.shrink);\n", ""]],
        first: HOSTILE,
      },
      {
        name: "vhost-table-not-unmapped",
        about: "memory stays mapped when its table is replaced, or its front end is gone",
        edits: [["if (!successor.#regions.includes(region)) region.mapping.unmap();", ""]],
        first: HOSTILE,
      },
    ],
  },
  {
    file: "packages/vhost-user/backend/rings.ts",
    mutants: [
      {
        name: "vhost-descriptor-of-anything",
        about: "a file is taken for an event file",
        edits: [['descriptorKind(message.descriptor(0)) === "other"', "false"]],
        first: HOSTILE,
      },
      {
        name: "vhost-ring-not-closed",
        about: "the descriptors of rings stay open when the front end is gone",
        edits: [["      for (const ring of this.rings) ring.close();\n", ""]],
        first: HOSTILE,
      },
      {
        name: "vhost-base-forgotten",
        about: "a ring that is stopped begins anew",
        edits: [["    if (position !== null) ring.position = position;\n", ""]],
        first: ["packages/vhost-user/backend/session_test.ts"],
      },
    ],
  },
  {
    file: "packages/vhost-user/backend/ring_log.ts",
    mutants: [
      {
        name: "vhost-log-not-shifted",
        about: "the used ring is logged where it is, not where the front end wants it",
        edits: [["if (from < 0 || from === to ||", "if (from < 0 || from !== to ||"]],
        first: ["packages/vhost-user/backend/ring_log_test.ts"],
      },
    ],
  },
  {
    file: "packages/vhost-user/backend/session.ts",
    mutants: [
      {
        name: "vhost-message-not-checked",
        about: "messages may have any size and any number of descriptors",
        edits: [[
          "    checkRequest(shape, message.payload.length, message.descriptorCount);\n",
          "",
        ]],
        first: HOSTILE,
      },
      {
        name: "vhost-message-not-closed",
        about: "descriptors that nobody took stay open",
        edits: [["      message.close();\n", ""]],
        first: HOSTILE,
      },
      {
        name: "vhost-protocol-feature-not-needed",
        about: "messages need no protocol feature",
        edits: [["    if (!this.#has(shape.needs)) {", "    if (shape.needs < 0n) {"]],
        first: HOSTILE,
      },
      {
        name: "vhost-one-front-end-for-ever",
        about: "all that a front end sends is seen to in one turn",
        edits: [["i < BATCH && !this.#channel.sending", "!this.#channel.sending"]],
        first: HOSTILE,
      },
    ],
  },
  {
    file: "packages/vhost-user/backend/inflight_split.ts",
    mutants: [
      {
        name: "vhost-notes-split-published-again",
        about: "what was published when the process died is done again",
        edits: [["    this.#forgetPublished(used);\n", ""]],
      },
      {
        name: "vhost-notes-split-any-order",
        about: "requests in flight are not done again in their order",
        edits: [["    heads.sort((a, b) => a.counter - b.counter);\n", ""]],
      },
      {
        name: "vhost-notes-split-undone-forgotten",
        about: "a request of an earlier process that is put back is not in flight any more",
        edits: [["    if (this.#taken-- <= this.#recovered) return;\n", "    this.#taken--;\n"]],
      },
    ],
  },
  {
    file: "packages/vhost-user/backend/inflight_packed.ts",
    mutants: [
      {
        name: "vhost-notes-packed-taken-back",
        about: "what was published when the process died is taken back",
        edits: [["if (begun && flags !== availableBy(wrap)) {", "if (begun && flags < 0) {"]],
      },
      {
        name: "vhost-notes-packed-committed",
        about: "what was not published when the process died counts as published",
        edits: [["if (begun && flags !== availableBy(wrap)) {", "if (begun) {"]],
      },
      {
        name: "vhost-notes-packed-noted-twice",
        about: "a request of an earlier process is noted once more",
        edits: [["if (this.#again < this.#recovered.length) {", "if (this.#again < 0) {"]],
      },
    ],
  },
  {
    file: "packages/vhost-user/backend/dirty_log.ts",
    mutants: [
      {
        name: "vhost-log-beyond-file",
        about: "a log may be longer than its file",
        edits: [["if (!(file.size >= start + bytes)) {", "if (!(file.size >= start)) {"]],
        first: HOSTILE,
      },
    ],
  },
  {
    file: "packages/vhost-user/backend/worker_seat.ts",
    mutants: [
      {
        name: "vhost-death-queues-forgotten",
        about: "the worker that comes after one that died has no queues",
        edits: [[
          'await fresh.call({ what: "startQueue", index, start });',
          "if (index < 0) this.#queues.set(index, start);",
        ]],
        first: DEATH,
      },
      {
        name: "vhost-death-config-forgotten",
        about: "the worker that comes after one that died does not know what the driver configured",
        edits: [["this.#written.set(call.offset, call);", ""]],
        first: DEATH,
      },
      {
        name: "vhost-death-endless",
        about: "workers are replaced for ever",
        edits: [["return this.#deaths.length < this.#most;", "return true;"]],
        first: DEATH,
      },
      {
        name: "vhost-death-guessed",
        about: "without notes a queue goes on as if nothing had been in flight",
        edits: [[".some(({ inflight }) => inflight === null);", ".some(() => false);"]],
        first: DEATH,
      },
    ],
  },
  {
    file: "packages/vhost-user/backend/worker_device.ts",
    mutants: [
      {
        name: "vhost-kick-shared",
        about: "two workers take kicks from one event file",
        edits: [["if (other !== index && its === target) return this.#of(other);", ""]],
        first: DEATH,
      },
    ],
  },
];
