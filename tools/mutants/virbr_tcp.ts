import type { MutatedFile } from "./mutant.ts";

const first = ["packages/virbr/tcp", "packages/virbr/flow"];

const FILES: readonly MutatedFile[] = [
  {
    file: "packages/virbr/tcp/sequence.ts",
    mutants: [
      {
        name: "virbr-tcp-sequence-wrap",
        about: "sequence numbers are compared as if they never began anew",
        edits: [["return (a - b) | 0;", "return a - b;"]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/segment.ts",
    mutants: [
      {
        name: "virbr-tcp-header-length",
        about: "a header may be longer than its segment",
        edits: [["if (header < HEADER_SIZE || header > length)", "if (header < HEADER_SIZE)"]],
      },
      {
        name: "virbr-tcp-option-length",
        about: "an option of no length is read again and again",
        edits: [["if (size < 2 || at + size > to) return;", "if (at + size > to) return;"]],
        hangs: true,
      },
      {
        name: "virbr-tcp-window-scale-bound",
        about: "a window is shifted by as much as the guest says",
        edits: [["Math.min(MAX_WINDOW_SCALE, view.getUint8(at + 2))", "view.getUint8(at + 2)"]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/opening.ts",
    mutants: [
      {
        name: "virbr-tcp-mss-ignored",
        about: "segments are as large as ours may be, whatever the guest takes",
        edits: [["Math.min(said, core.emitter.mss)", "core.emitter.mss"]],
      },
      {
        name: "virbr-tcp-mss-dust",
        about: "a guest may have frames cut into single bytes",
        edits: [["Math.max(LEAST_MSS, Math.min(", "Math.max(1, Math.min("]],
      },
      {
        name: "virbr-tcp-scale-unasked",
        about: "windows are scaled though the guest cannot",
        edits: [[
          "core.scales = syn.windowScale >= 0;",
          "core.scales = true;",
        ]],
      },
      {
        name: "virbr-tcp-syn-answer-unchecked",
        about: "an answer to another SYN opens the connection",
        edits: [["if (acked && segment.ack !== core.sender.nxt) {", "if (acked && false) {"]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/arrivals.ts",
    mutants: [
      {
        name: "virbr-tcp-reset-anywhere",
        about: "a reset anywhere in the window ends a connection",
        edits: [[
          'if (offset === 0) core.close("reset");',
          'if (offset >= 0) core.close("reset");',
        ]],
      },
      {
        name: "virbr-tcp-syn-ends",
        about: "a SYN in the midst of a connection ends it",
        edits: [[
          "      // Never a reason to end anything (RFC 5961, 4.2).\n      this.#challenge();",
          '      core.close("reset");',
        ]],
      },
      {
        name: "virbr-tcp-handshake-number",
        about: "any acknowledgement completes the handshake",
        edits: [["if (segment.ack !== sender.nxt) {", "if (segment.ack > sender.nxt) {"]],
      },
      {
        name: "virbr-tcp-acknowledges-unsent",
        about: "what was never sent may be acknowledged",
        edits: [["if (beyond > 0 || ahead(", "if (ahead("]],
      },
      {
        name: "virbr-tcp-syn-again-unanswered",
        about: "a SYN that comes again, since our answer was lost, gets none",
        edits: [[
          "          this.#opening.sendSyn(SYN | ACK);\n          return false;",
          "          return false;",
        ]],
      },
      {
        name: "virbr-tcp-challenges-unbounded",
        about: "two who disagree talk for ever",
        edits: [["if (now - core.times[At.challenged]! < CHALLENGE_INTERVAL) return;", ""]],
      },
      {
        name: "virbr-tcp-keeps-timer",
        about: "what was acknowledged is still waited for",
        edits: [["    times[At.repeat] = Infinity;\n    if (core.sender", "    if (core.sender"]],
      },
      {
        name: "virbr-tcp-no-time-wait",
        about: "who closed first forgets at once",
        edits: [["if (!core.active) {", "if (core.active || !core.active) {"]],
      },
      {
        name: "virbr-tcp-odd-data-silent",
        about: "a gap is not told at once",
        edits: [["if (taken === Taken.odd) this.#oddData();", "if (taken === Taken.odd) return;"]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/sender.ts",
    mutants: [
      {
        name: "virbr-tcp-old-window",
        about: "an old segment that was overtaken sets the window",
        edits: [[
          "if (newer < 0 || newer === 0 && ahead(segment.ack, this.#windowAck) < 0) return false;",
          "",
        ]],
      },
      {
        name: "virbr-tcp-window-unscaled",
        about: "the guest's window is not scaled",
        edits: [[
          "segment.window : segment.window << this.scale;",
          "segment.window : segment.window;",
        ]],
      },
      {
        name: "virbr-tcp-window-exceeded",
        about: "more is sent than the guest has room for",
        edits: [[
          "const room = Math.min(window - out, this.congestionWindow - pipe);",
          "const room = this.congestionWindow - pipe;",
        ]],
      },
      {
        name: "virbr-tcp-congestion-ignored",
        about: "a lossy path gets as much as the guest has room for",
        edits: [[
          "const room = Math.min(window - out, this.congestionWindow - pipe);",
          "const room = window - out;",
        ]],
      },
      {
        name: "virbr-tcp-silly-segments",
        about: "whatever little room there is is filled",
        edits: [[
          "if (length < this.maxWindow >>> 1 || window - out > length) return false;",
          "",
        ]],
      },
      {
        name: "virbr-tcp-sack-lies",
        about: "the guest may say that it holds what was never sent",
        edits: [[
          "ahead(start, this.una) > 0 && ahead(end, start) > 0 && ahead(end, this.max) <= 0",
          "ahead(start, this.una) > 0 && ahead(end, start) > 0",
        ]],
      },
      {
        name: "virbr-tcp-no-fast-repeat",
        about: "a loss is noticed by time only",
        edits: [["if (!lost || ahead(this.una, this.#recover) < 0) return;", "return;"]],
      },
      {
        name: "virbr-tcp-fin-before-data",
        about: "the end counts as acknowledged with the last byte",
        edits: [[
          "if (acked > ring.used) this.ended = true;",
          "if (acked >= ring.used) this.ended = true;",
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/receiver.ts",
    mutants: [
      {
        name: "virbr-tcp-early-dropped",
        about: "what came early is not joined to what was missing",
        edits: [[
          "if (ahead(from, early.start(0)) >= 0 && ahead(early.end(0), from) > 0) from = early.end(0);",
          "",
        ]],
      },
      {
        name: "virbr-tcp-overlap-twice",
        about: "bytes that came before are taken again",
        edits: [["let skip = ahead(this.nxt, segment.seq);", "let skip = 0;"]],
      },
      {
        name: "virbr-tcp-end-moves",
        about: "the end of what the guest says may be moved",
        edits: [[
          "if (this.#ends ? end !== this.#end : ahead(end, this.nxt) < 0) return Taken.odd;",
          "",
        ]],
      },
      {
        name: "virbr-tcp-behind-end",
        about: "bytes behind the end are taken",
        edits: [["if (this.#ends) room = Math.min(room, ahead(this.#end, from));", ""]],
      },
      {
        name: "virbr-tcp-window-not-reopened",
        about: "a guest that found the window shut is not told that there is room",
        edits: [["    return more >= Math.min(", "    return more < 0 && more >= Math.min("]],
      },
      {
        name: "virbr-tcp-silly-windows",
        about: "each byte of room is told",
        edits: [[
          "Math.max(2 * mss, ring.size >>> 3)",
          "1",
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/ranges.ts",
    mutants: [
      {
        name: "virbr-tcp-ranges-unjoined",
        about: "ranges that touch stay two",
        edits: [[
          "ahead(end, edges[2 * last]!) >= 0) last++;",
          "ahead(end, edges[2 * last]!) > 0) last++;",
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/round_trip.ts",
    mutants: [
      {
        name: "virbr-tcp-no-back-off",
        about: "what got no answer is sent again as often as ever",
        edits: [["Math.min(MOST, 2 * this.#state[2]!)", "Math.min(MOST, this.#state[2]!)"]],
      },
      {
        name: "virbr-tcp-impatient",
        about: "what is out is sent again after a few milliseconds",
        edits: [["Math.max(LEAST, state[0]! + ", "Math.max(1, state[0]! + "]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/due.ts",
    mutants: [
      {
        name: "virbr-tcp-never-gives-up",
        about: "a guest that is silent has a connection for ever",
        edits: [[
          "    if (sender.retries >= MAX_RETRIES) return this.#lost();\n    sender.expire();",
          "    sender.expire();",
        ]],
      },
      {
        name: "virbr-tcp-syn-for-ever",
        about: "a handshake that nobody completes never ends",
        edits: [["if (sender.retries >= MAX_SYN_RETRIES) return this.#lost();", ""]],
      },
      {
        name: "virbr-tcp-no-probe",
        about: "a window that was shut is not asked about: a lost update stops everything",
        edits: [[
          "core.deadlines.set(At.persist, now + core.roundTrip.timeout);\n    this.#departures.probe();",
          "core.deadlines.set(At.persist, now + core.roundTrip.timeout);",
        ]],
      },
      {
        name: "virbr-tcp-alive-unasked",
        about: "a guest that vanished keeps its connections",
        edits: [["if (core.probes >= keepAliveProbes) return this.#lost();", ""]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/departures.ts",
    mutants: [
      {
        name: "virbr-tcp-karn",
        about: "the answer to what was sent twice counts as a measurement",
        edits: [["      core.timing = false;\n", ""]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/shares.ts",
    mutants: [
      {
        name: "virbr-tcp-memory-unshared",
        about: "one port takes all buffers",
        edits: [["if (held >= pool.left) return null;", ""]],
      },
    ],
  },
  {
    file: "packages/virbr/tcp/engine.ts",
    mutants: [
      {
        name: "virbr-tcp-sum-unchecked",
        about: "damaged segments are taken",
        edits: [["if (this.#closed || !packet.checksumGood) return;", "if (this.#closed) return;"]],
      },
      {
        name: "virbr-tcp-other-station",
        about: "another station goes on with a connection, since it has the address now",
        edits: [['if (known.path.guest !== packet.guest) known.forget("gone");\n      else ', ""]],
      },
      {
        name: "virbr-tcp-reset-answered",
        about: "a reset is answered by a reset",
        edits: [["if ((flags & RST) !== 0) return;\n    const output", "const output"]],
      },
      {
        name: "virbr-tcp-time-wait-unbounded",
        about: "any number of connections are remembered after their end",
        edits: [[
          "if (this.#waiting.size <= this.#maxTimeWait) return;",
          "if (this.#maxTimeWait >= 0) return;",
        ]],
      },
      {
        name: "virbr-tcp-gone-stays",
        about: "a guest that is gone keeps its connections",
        edits: [[
          'if (each.path.guest === guest) each.forget("gone");',
          'if (each.path.guest !== guest) each.forget("gone");',
        ]],
      },
    ],
  },
];

/** TCP's end of the network of guests: numbers, windows, timers, what is lost, how it begins and ends. */
export const VIRBR_TCP: readonly MutatedFile[] = FILES.map(({ file, mutants }) => ({
  file,
  mutants: mutants.map((mutant) => ({ ...mutant, first })),
}));
