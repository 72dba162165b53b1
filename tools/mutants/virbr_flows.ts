import type { MutatedFile } from "./mutant.ts";

/** What joins guests to the outside: who may reach what, how much of it, and how ends and failures pass. */
export const VIRBR_FLOWS: readonly MutatedFile[] = [
  {
    file: "packages/virbr/flow/tcp_flow.ts",
    mutants: [
      {
        name: "virbr-flow-half-close-inward",
        about: "the outside does not hear that the guest has said all",
        edits: [["await this.#stream.closeWrite();", ""]],
      },
      {
        name: "virbr-flow-half-close-outward",
        about: "the guest does not hear that the outside has said all",
        edits: [["if (!this.#cut) connection.end();", ""]],
      },
      {
        name: "virbr-flow-pressure",
        about: "bytes are taken from the guest before the outside took them",
        edits: [[
          "if (this.#closed) break;\n        connection.consume(count);",
          "if (this.#closed) break;\n        connection.consume(bytes.length);",
        ]],
      },
      {
        name: "virbr-flow-broken-is-ended",
        about: "an outside that was reset looks to the guest as if it had said all",
        edits: [[
          "      this.#doomed = this.#cut = true;\n",
          "      this.#doomed = true;\n      connection.end();\n",
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/flow/nat.ts",
    mutants: [
      {
        name: "virbr-flow-abandoned-attempt",
        about: "a guest that gives up keeps the host connecting",
        edits: [["closed: () => attempt.abort() };", "closed() {} };"]],
      },
      {
        name: "virbr-flow-place-kept",
        about: "a connection that failed keeps its place among the flows",
        edits: [[
          "if (stream === null) return end();",
          "if (stream === null) return void counts.tcp--;",
        ]],
      },
      {
        name: "virbr-flow-hook-place-kept",
        about: "a flow that the hook refused keeps its place",
        edits: [[
          "      counts.unwanted++;\n      this.#limits.leave(guest);",
          "      counts.unwanted++;",
        ]],
      },
      {
        name: "virbr-flow-loopback",
        about: "the gateway's address means the host's loopback unasked",
        edits: [[
          'const { mode = "nat", hostLoopback = false }',
          'const { mode = "nat", hostLoopback = true }',
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/flow/policy.ts",
    mutants: [
      {
        name: "virbr-flow-version",
        about: "addresses of IPv4 are reached by packets of IPv6",
        edits: [["if (isIpv4(address) !== (version === 4)) return false;", ""]],
      },
      {
        name: "virbr-flow-own-networks",
        about: "the host's loopback and link-local networks are reached",
        edits: [["if (OWN.some(inIt)) return false;", ""]],
      },
      {
        name: "virbr-flow-host-networks",
        about: "networks that the host is in are reached",
        edits: [["|| !this.#hostNetworks().some(inIt);", "|| true;"]],
      },
      {
        name: "virbr-flow-deny-last",
        about: "what is allowed may not be denied",
        edits: [["inside.some(inIt) || this.#deny.some(inIt)", "inside.some(inIt)"]],
      },
    ],
  },
  {
    file: "packages/virbr/flow/limits.ts",
    mutants: [
      {
        name: "virbr-flow-limit",
        about: "a port has any number of flows",
        edits: [["share.flows >= this.#maxFlows || ", ""]],
      },
      {
        name: "virbr-flow-rate",
        about: "flows begin as fast as a guest likes",
        edits: [[" || !share.bucket.take(now)) return false;", ") return false;"]],
      },
    ],
  },
  {
    file: "packages/virbr/flow/udp_flows.ts",
    mutants: [
      {
        name: "virbr-udp-anybody-answers",
        about: "datagrams of hosts that the guest never spoke to reach it",
        edits: [[
          "if (this.closed || known === null) {",
          "if (this.closed || (known ?? last) === null) {",
        ], [
          "sendDatagram(output, known.path, known.port,",
          "sendDatagram(output, (known ?? last)!.path, (known ?? last)!.port,",
        ]],
      },
      {
        name: "virbr-udp-waiting-unbounded",
        about: "datagrams wait for a socket without end",
        edits: [[
          "else if (this.#waiting.length < MAX_WAITING) this",
          "else if (MAX_WAITING > 0) this",
        ]],
      },
      {
        name: "virbr-udp-destinations-unbounded",
        about: "a flow remembers every host that it ever spoke to",
        edits: [[
          "if (this.#destinations.size >= MAX_DESTINATIONS) {",
          "if (MAX_DESTINATIONS < 0) {",
        ]],
      },
    ],
  },
];
