import type { MutatedFile } from "./mutant.ts";

/** What the status machine is made of, the registers of queues, the configuration space, and what serves queues. */
export const DEVICE: readonly MutatedFile[] = [
  {
    file: "packages/device/negotiation.ts",
    mutants: [
      {
        name: "version-1-not-demanded",
        about: "FEATURES_OK is accepted without VERSION_1",
        edits: [[" || (accepted & VIRTIO_F_VERSION_1) === 0n) return false;", ") return false;"]],
      },
      {
        name: "features-not-offered",
        about: "FEATURES_OK is accepted with features that were not offered",
        edits: [["if ((accepted & ~this.offered) !== 0n || (accepted", "if ((accepted"]],
      },
      {
        name: "features-not-asked",
        about: "the device is not asked whether it can work with the features",
        edits: [[
          "if (!(this.#device.accepts?.(accepted) ?? true)) return false;",
          "this.#device.accepts?.(accepted);",
        ]],
      },
      {
        name: "feature-words-two-only",
        about: "feature bits from 64 on are not shown",
        edits: [[
          "if (!(word >= 0 && word < WORDS)) return 0;",
          "if (!(word >= 0 && word < 2)) return 0;",
        ]],
      },
      {
        name: "feature-words-repeat",
        about: "feature words from 4 on show the first ones again",
        edits: [["if (!(word >= 0 && word < WORDS)) return 0;", "word &= 3;"]],
      },
    ],
  },
  {
    file: "packages/device/device_queues.ts",
    mutants: [
      {
        name: "ring-reset-does-not-drain",
        about: "a queue reset is complete while chains are in flight",
        edits: [[
          "if (!this.#stopping.has(index)) this.#drain([index], () => this.#ended(index));",
          `if (!this.#stopping.has(index)) this.#drain([index], () => {});
    this.#ended(index);`,
        ]],
      },
      {
        name: "ring-reset-keeps-registers",
        about: "a queue that was reset has its old addresses",
        edits: [[
          "if (setup.resetting) setup.reset();",
          "if (setup.resetting) setup.resetting = setup.enabled = false;",
        ]],
      },
      {
        name: "queue-larger-than-maximum",
        about: "a queue may be larger than the device said",
        edits: [[
          `if (setup.size > setup.maxSize) {
      throw new VirtqueueError(`,
          `if (setup.size < 0) {
      throw new VirtqueueError(`,
        ]],
      },
    ],
  },
  {
    file: "packages/device/saved_device.ts",
    mutants: [
      {
        name: "restore-running-and-suspended",
        about: "a saved device may be both running and suspended",
        edits: [["if ((status & running) === running) {", "if (false) {"]],
      },
      {
        name: "restore-in-flight",
        about: "a saved queue may have chains in flight, which nobody has",
        edits: [[
          "(position.nextAvail !== position.nextUsed || position.availWrap !== position.usedWrap)",
          "position.nextAvail < 0",
        ]],
      },
    ],
  },
  {
    file: "packages/device/queue_setup.ts",
    mutants: [
      {
        name: "queue-size-cut-to-16-bits",
        about: "a size of more than 16 bits is taken for a smaller one",
        edits: [["value > 0xffff ? 0xffff : value", "value & 0xffff"]],
      },
      {
        name: "queue-moved-while-enabled",
        about: "the addresses of an enabled queue can be changed",
        edits: [[
          "if (!this.enabled) this.#halves[2 * area + half] = value;",
          "this.#halves[2 * area + half] = value;",
        ]],
      },
      {
        name: "queue-resized-while-enabled",
        about: "the size of an enabled queue can be changed",
        edits: [[
          "if (!this.enabled) this.#size = value > 0xffff ? 0xffff : value;",
          "this.#size = value > 0xffff ? 0xffff : value;",
        ]],
      },
      {
        name: "queue-address-high-half-ignored",
        about: "queues above 4 GiB are looked for below",
        edits: [[" + this.#halves[2 * area + 1]! * 0x1_0000_0000;", ";"]],
      },
      {
        name: "queue-reset-keeps-addresses",
        about: "the addresses of a queue survive its reset",
        edits: [["this.#halves.fill(0);", ""]],
      },
      {
        name: "queue-reset-keeps-size",
        about: "the size of a queue survives its reset",
        edits: [["    this.#size = this.maxSize;\n    this.#halves", "    this.#halves"]],
      },
    ],
  },
  {
    file: "packages/device/config_space.ts",
    mutants: [
      {
        name: "config-generation-stays",
        about: "the generation stays when the configuration changes",
        edits: [[
          `    this.#generation = (this.#generation + 1) >>> 0;
    this.#listener?.();`,
          "    this.#listener?.();",
        ]],
      },
      {
        name: "config-change-silent",
        about: "the driver is not told that the configuration changed",
        edits: [["this.#listener?.();", ""]],
      },
      {
        name: "config-write-beyond-end",
        about: "a write may begin in the configuration and end behind it",
        edits: [["offset + size > this.bytes.length", "offset > this.bytes.length"]],
      },
      {
        name: "config-write-refused-taken",
        about: "what the device does not accept is written to the configuration",
        edits: [[
          "if (this.#onWrite(offset, bytes)) this.bytes.set(bytes, offset);",
          `this.#onWrite(offset, bytes);
    this.bytes.set(bytes, offset);`,
        ]],
      },
    ],
  },
  {
    file: "packages/device/queue_device.ts",
    mutants: [
      {
        name: "stop-keeps-chains",
        about: "a reset does not drop what is in flight",
        edits: [["for (const server of this.#servers) server.abandon();", ""]],
      },
      {
        name: "old-work-overtakes",
        about: "the next life does not wait for work of the one before",
        edits: [[
          "server.start(queue, this.#activation, this.#stale > 0);",
          "server.start(queue, this.#activation, false);",
        ]],
      },
    ],
  },
  {
    file: "packages/device/queue_server.ts",
    mutants: [
      {
        name: "server-stale-views-at-kick",
        about: "a kick looks into the memory as it was before it grew",
        edits: [[
          `      activation.memory.refresh();
      this.#rounds`,
          "      this.#rounds",
        ]],
      },
      {
        name: "server-stale-views-at-flush",
        about: "late completions are published in the memory as it was before it grew",
        edits: [[
          `    activation.memory.refresh();
    if (queue.flush()) this`,
          "    if (queue.flush()) this",
        ]],
      },
      {
        name: "server-stale-views-at-take",
        about: "a lazy queue is looked at in the memory as it was before it grew",
        edits: [[
          `      activation.memory.refresh();
      let chain`,
          "      let chain",
        ]],
      },
      {
        name: "server-sleeps-on-work",
        about: "what arrived while the device asked for kicks waits for the next kick",
        edits: [["if (!queue.arm()) return;", "queue.arm();\n      return;"]],
      },
      {
        name: "server-interrupts-always",
        about: "the driver is interrupted though it did not ask",
        edits: [[
          `      if (queue.flush()) this.#interrupt(activation);
      if (this.queue`,
          `      queue.flush();
      this.#interrupt(activation);
      if (this.queue`,
        ]],
      },
      {
        name: "server-never-suspends",
        about: "the driver kicks while the device is looking anyway",
        edits: [["      queue.suspend();\n", ""]],
      },
      {
        name: "server-one-chain-per-kick",
        about: "a kick handles one chain and leaves the others",
        edits: [[
          "        if (chain === null) break;\n        this.counters",
          "        if (chain === null || this.counters.chains % 2 === 1) break;\n        this.counters",
        ]],
      },
      {
        name: "server-rounds-unbounded",
        about: "a driver that keeps a queue full keeps the event loop",
        edits: [["round < ROUNDS; round++", "round < Infinity; round++"]],
        hangs: true,
        first: ["tests/hostile/work_test.ts"],
      },
      {
        name: "server-completes-dropped",
        about: "a chain that a reset dropped is used all the same",
        edits: [[
          " || chain.owner !== DEVICE) return;\n    activation.memory.refresh();",
          ") return;\n    activation.memory.refresh();",
        ]],
      },
      {
        name: "server-stops-at-once",
        about: "a queue counts as stopped while chains are in flight",
        edits: [["if (queue.inFlight === 0 && !this.#draining) {", "if (!this.#draining) {"]],
      },
      {
        name: "server-swallows-errors",
        about: "an error of the driver stops the queue in silence",
        edits: [[
          "    } catch (error) {\n      this.#failed(error, queue, activation);",
          "    } catch {",
        ]],
      },
      {
        name: "server-stale-views",
        about: "late completions go to the memory as it was before it grew",
        edits: [[
          `    activation.memory.refresh();
    queue.push(chain, written);`,
          "    queue.push(chain, written);",
        ]],
      },
      {
        name: "server-mistake-takes-all",
        about: "what was done before a driver's mistake is lost",
        edits: [["      this.#publish(queue, activation);\n    } finally {", "    } finally {"]],
      },
      {
        name: "server-parts-of-one",
        about: "a part is published without what it brought about in other queues",
        edits: [["    publishDue();\n", ""]],
      },
      {
        name: "server-late-unpublished",
        about: "late completions are not published",
        edits: [["publishSoon(this.#flushLater);", ""]],
      },
    ],
  },
];
