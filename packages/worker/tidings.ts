import type { ConfigSpace } from "@virtio/device";
import { errorFrom } from "./call.ts";
import type { Crew } from "./crew.ts";
import type { DeviceWorker } from "./device_worker.ts";
import type { News } from "./messages.ts";
import { BellWord } from "./words.ts";

/** What workers tell by the bell, and who is told: interrupts, what was written, changes of the configuration, failures. */
export class Tidings {
  readonly #crew: Crew;
  #config: ConfigSpace | null = null;
  /** Interrupts that were passed on, by queue. */
  #seen: Int32Array = new Int32Array(0);
  /** What the bell's word was when workers were asked what they have to say. */
  #news = 0;
  /** What the bell's word was when the memory's tracker was told last. */
  #written = 0;

  /** @param crew Who tells. */
  constructor(crew: Crew) {
    this.#crew = crew;
  }

  /** What the device is, is known now: how many queues it has, and its configuration. */
  introduce(queues: number, config: ConfigSpace): void {
    this.#seen = new Int32Array(queues);
    this.#config = config;
  }

  /** A life begins: interrupts of the past are nobody's. */
  begin(): void {
    for (let queue = 0; queue < this.#seen.length; queue++) {
      this.#seen[queue] = this.#crew.bell.interrupts(queue);
    }
  }

  /** Passes on what there is. @returns Whether there was anything. */
  pass(): boolean {
    let any = this.#passWritten();
    if (this.#passInterrupts()) any = true;
    return this.ask() || any;
  }

  #passWritten(): boolean {
    const written = Atomics.load(this.#crew.bell.words, BellWord.written);
    if (written === this.#written) return false;
    this.#written = written;
    this.tellWritten();
    return true;
  }

  /** Tells the memory's tracker what was written so far. */
  tellWritten(): void {
    const { activation } = this.#crew;
    if (activation !== null) this.#crew.tellWritten(activation.memory);
  }

  /** Asks the workers, if they have something to say. @returns Whether they had. */
  ask(): boolean {
    const news = Atomics.load(this.#crew.bell.words, BellWord.news);
    if (news === this.#news) return false;
    this.#news = news;
    let any = false;
    for (const worker of this.#crew.workers) {
      if (this.#passNews(worker)) any = true;
    }
    return any;
  }

  #passInterrupts(): boolean {
    const crew = this.#crew;
    const { activation } = crew;
    if (activation === null) return false;
    let any = false;
    for (let queue = 0; queue < this.#seen.length; queue++) {
      const count = crew.bell.interrupts(queue);
      if (count === this.#seen[queue]) continue;
      this.#seen[queue] = count;
      // What was written is told before the driver is told to look at it.
      if (!any) crew.tellWritten(activation.memory);
      any = true;
      activation.interrupt.queue(queue);
      if (crew.activation !== activation) return true;
    }
    return any;
  }

  #passNews(worker: DeviceWorker): boolean {
    const crew = this.#crew;
    let news: News | null;
    try {
      news = worker.news();
    } catch {
      // It is dead, and that was told.
      return false;
    }
    if (news === null) return false;
    const { config, failure } = news;
    if (config !== null && worker === crew.workers[0]) {
      this.#config?.update((view) => new Uint8Array(view.buffer).set(config));
    }
    if (failure?.life === crew.life) {
      // What it had used before is told before.
      this.#passInterrupts();
      crew.activation?.fail(errorFrom(failure.error));
    }
    return true;
  }
}
