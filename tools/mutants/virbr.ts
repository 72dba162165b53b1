import type { MutatedFile } from "./mutant.ts";

/** The network of guests: what they may say, what the gateway reads, addresses and names. */
export const VIRBR: readonly MutatedFile[] = [
  {
    file: "packages/virbr/wire/stations.ts",
    mutants: [
      {
        name: "virbr-address-of-others",
        about: "a guest takes the address of another who is heard",
        edits: [[
          "if (owner !== undefined && lessee === null && station.heard - owner.heard < SILENCE) {",
          "if (owner !== undefined && lessee === null && station.heard < owner.heard) {",
        ]],
      },
      {
        name: "virbr-claims-ignored",
        about: "addresses that DHCP did not give are used though claims are off",
        edits: [["if (lessee === null ? !claims : lessee", "if (lessee === null ? false : lessee"]],
      },
      {
        name: "virbr-stations-unbounded",
        about: "a port has as many stations as it likes",
        edits: [["if (port.stations >= port.maxStations && ", "if (port.stations < 0 && "]],
      },
      {
        name: "virbr-gone-keeps-address",
        about: "the addresses of a guest that is gone stay its own",
        edits: [["for (const address of station.ipv4) this.#by4.delete(address);", ""]],
      },
    ],
  },
  {
    file: "packages/virbr/wire/guard.ts",
    mutants: [
      {
        name: "virbr-arp-of-others",
        about: "ARP may name another's MAC address",
        edits: [["if (high !== station.high || low !== station.low) return Verdict.spoofed;", ""]],
      },
      {
        name: "virbr-rogue-dhcp",
        about: "guests may be DHCP servers",
        edits: [["if (ports === 67 * 0x1_0000 + 68) return Verdict.rogue;", ""]],
      },
      {
        name: "virbr-router-behind-extension",
        about: "a router advertisement passes behind an extension header",
        edits: [[
          "next === 43 || next === 44 || next === 60; i++",
          "next === 43 || next === 44; i++",
        ]],
      },
      {
        name: "virbr-neighbour-of-others",
        about: "a guest advertises itself as another's neighbour",
        edits: [["if (!stations.claim6(station, target)) return Verdict.spoofed;", ""]],
      },
    ],
  },
  {
    file: "packages/virbr/ip/reassembly.ts",
    mutants: [
      {
        name: "virbr-fragments-overlap",
        about: "fragments that overlap make a packet",
        edits: [["if (place < before || end > behind || ", "if ("]],
      },
      {
        name: "virbr-fragments-for-ever",
        about: "fragments wait without end",
        edits: [["this.#list[0]!.deadline <= now", "this.#list[0]!.deadline < 0"]],
      },
      {
        name: "virbr-fragments-unbounded",
        about: "a port may have any number of packets in pieces",
        edits: [["if (own.length >= this.#perGuest) this", "if (own.length < 0) this"]],
      },
    ],
  },
  {
    file: "packages/virbr/ip/input.ts",
    mutants: [
      {
        name: "virbr-header-sum-unchecked",
        about: "the sum of the header of IPv4 is not looked at",
        edits: [[
          "if (sumBytes(view, ETHERNET, ETHERNET + size) !== 0xffff) return this.#damaged();",
          "",
        ]],
      },
      {
        name: "virbr-length-unchecked",
        about: "a packet may say that it is longer than its frame",
        edits: [[
          "if (total < size || total > MOST || ETHERNET + total > length) return",
          "if (total < size || total > MOST) return",
        ]],
      },
      {
        name: "virbr-mapped-addresses",
        about: "addresses of IPv4 come in packets of IPv6",
        edits: [[
          "if (isIpv4(packet.source) || isIpv4(packet.destination)) return this.#malformed();",
          "",
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/ip/gateway.ts",
    mutants: [
      {
        name: "virbr-recursion",
        about: "a frame is handled in the midst of another",
        edits: [["if (this.#busy === 0 && this.#waiting.count === 0) {", "if (this.#busy >= 0) {"]],
      },
      {
        name: "virbr-isolated-forwards",
        about: "isolated guests reach the outside",
        edits: [[
          '    else if (isMartian4(destination)) this.refuse(packet, "network");\n' +
          '    else if (packet.hopLimit < 2) this.refuse(packet, "hopLimit");\n' +
          "    else if (!forwarding) this.#unrouted(packet);",
          '    else if (isMartian4(destination)) this.refuse(packet, "network");\n' +
          '    else if (packet.hopLimit < 2) this.refuse(packet, "hopLimit");',
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/ip/output.ts",
    mutants: [
      {
        name: "virbr-partial-sum-of-fragments",
        about: "the sum of a packet in fragments is left to the guest",
        edits: [["if (segmented || (transport && whole && ", "if (segmented || (transport && "]],
      },
    ],
  },
  {
    file: "packages/virbr/dhcp/leases.ts",
    mutants: [
      {
        name: "virbr-lease-twice",
        about: "an address that is leased is given again",
        edits: [[
          "if (entry !== undefined && entry.mac !== mac && entry.expires > now) return false;",
          "",
        ]],
      },
      {
        name: "virbr-declined-again",
        about: "an address that was declined is offered again",
        edits: [["if (declined !== undefined && declined.until > now) return false;", ""]],
      },
      {
        name: "virbr-leases-unbounded",
        about: "a guest that changes its MAC address gets ever more leases",
        edits: [["|| !shares.full(port)) return true;", "|| shares.full(port)) return true;"]],
      },
      {
        name: "virbr-names-of-others",
        about: "a guest takes the name of another",
        edits: [["if (owner !== mac && other.expires > this.#options.clock()) return false;", ""]],
      },
    ],
  },
  {
    file: "packages/virbr/dhcp/server.ts",
    mutants: [
      {
        name: "virbr-dhcp-for-others",
        about: "a guest gets leases for MAC addresses of others",
        edits: [["request.relay !== 0 || request.mac !== station.mac", "request.relay !== 0"]],
      },
      {
        name: "virbr-dhcp-other-server",
        about: "a request to another server is taken for one to us",
        edits: [[
          "if (server !== null && server !== this.#settings.address) {",
          "if (server === -1) {",
        ]],
      },
      {
        name: "virbr-dhcp-release-to-other-server",
        about: "an address that is given back to another server is taken back by us",
        edits: [[
          "return server === null || server === this.#settings.address;",
          "return server !== -1;",
        ]],
      },
      {
        name: "virbr-dhcp-not-offered",
        about: "who answers an offer may have another address than that",
        edits: [["? known !== null && known.address === address\n", "? true\n"]],
      },
      {
        name: "virbr-dhcp-not-authoritative",
        about: "a client with a wrong address is not told",
        edits: [[
          "    this.stats.messages.nak++;\n",
          "    if (this.stats.messages.nak++ >= 0) return;\n",
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/dns/walk.ts",
    mutants: [
      {
        name: "virbr-dns-circle",
        about: "names may lead to themselves",
        edits: [["if (target >= lowest || target < HEADER) return -1;", ""]],
      },
      {
        name: "virbr-dns-trailing",
        about: "bytes behind a message are let through",
        edits: [["if (at !== bytes.length) return null;", ""]],
      },
    ],
  },
  {
    file: "packages/virbr/dns/forwarder.ts",
    mutants: [
      {
        name: "virbr-dns-any-id",
        about: "an answer with another id is taken",
        edits: [["if ((answer[0]! << 8 | answer[1]!) !== id) return false;", ""]],
      },
      {
        name: "virbr-dns-any-question",
        about: "the answer to another question is taken",
        edits: [[
          "if (answer[i] !== message[i] && lower(answer[i]!) !== lower(message[i]!)) return false;",
          "",
        ]],
      },
      {
        name: "virbr-dns-unbounded",
        about: "a guest asks for as much as it likes",
        edits: [["if (this.#pending.of(port) >= this.#options.perGuest || ", "if ("]],
      },
    ],
  },
  {
    file: "packages/virbr/flow/limits.ts",
    mutants: [
      {
        name: "virbr-flows-by-mac",
        about: "a guest that changes its MAC address gets ever more flows",
        edits: [[
          "let share = this.#shares.get(guest.port);",
          "let share = this.#shares.get(guest.mac);",
        ], [
          "this.#shares.set(guest.port, share",
          "this.#shares.set(guest.mac, share",
        ], [
          "this.#shares.get(guest.port)!.flows--;",
          "this.#shares.get(guest.mac)!.flows--;",
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/dns/rebinding.ts",
    mutants: [
      {
        name: "virbr-rebinding-private",
        about: "of 172.16.0.0/12 a sixteenth is looked at",
        edits: [["second >> 4 === 1", "second === 16"]],
      },
      {
        name: "virbr-rebinding-shared",
        about: "the network that providers share passes",
        edits: [[" || (first === 100 && second >> 6 === 1)", ""]],
      },
      {
        name: "virbr-rebinding-6to4",
        about: "private networks by way of 6to4 pass",
        edits: [[
          'if (a >>> 16 === 0x2002) return isInner4(bytes[2]!, bytes[3]!, rule === "refuse");',
          "",
        ]],
      },
      {
        name: "virbr-rebinding-translated",
        about: "private networks by way of a translator pass",
        edits: [[
          "if (a === 0x0064_ff9b && b === 0 && c === 0) {",
          "if (a === 0x0064_ff9b && b === 1) {",
        ]],
      },
      {
        name: "virbr-rebinding-link-local",
        about: "link-local addresses of IPv6 pass",
        edits: [["if ((a & 0xffc0_0000) >>> 0 === 0xfe80_0000) return true;", ""]],
      },
      {
        name: "virbr-rebinding-mapped",
        about: "loopback in the clothes of IPv6 passes",
        edits: [[
          "if (a === 0 && b === 0 && (c === 0 || c === 0xffff)) {",
          "if (a === 0 && b === 0 && c === 0 && d <= 1) {",
        ]],
      },
    ],
  },
  {
    file: "packages/virbr/ip/router.ts",
    mutants: [
      {
        name: "virbr-router-too-long",
        about: "the uplink gets packets that it does not take",
        edits: [[
          "const tooLong = packetLength(frame) > this.#options.mtu;",
          "const tooLong = false;",
        ]],
      },
      {
        name: "virbr-router-spoofed",
        about: "the outside may speak for a guest",
        edits: [["!isInside(guests, view.getUint32(IP + 12));", "true;"]],
      },
    ],
  },
];
