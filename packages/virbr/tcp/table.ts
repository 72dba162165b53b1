import type { AddressWords } from "../ip/packet.ts";
import type { Connection } from "./connection.ts";

const BUCKETS = 1024;

/** Finds connections by their addresses and ports. Nobody can foresee who shares a bucket with whom. */
export class ConnectionTable {
  /** How many there are. */
  size = 0;
  readonly #buckets: (Connection | null)[] = new Array(BUCKETS).fill(null);
  readonly #secret: Int32Array = crypto.getRandomValues(new Int32Array(4));

  /** Finds a connection; null if there is none. `local` is this side's address. */
  find(
    local: AddressWords,
    localPort: number,
    guest: AddressWords,
    guestPort: number,
  ): Connection | null {
    let each: Connection | null = this.#buckets[this.#hash(local, localPort, guest, guestPort)]!;
    while (each !== null) {
      if (
        each.localPort === localPort && each.guestPort === guestPort &&
        equal(each.path.source, local) && equal(each.path.destination, guest)
      ) return each;
      each = each.next;
    }
    return null;
  }

  /** Adds a connection that is not in it. */
  add(connection: Connection): void {
    const bucket = this.#bucketOf(connection);
    connection.next = this.#buckets[bucket]!;
    this.#buckets[bucket] = connection;
    this.size++;
  }

  /** Takes a connection out, if it is in it. */
  remove(connection: Connection): void {
    const bucket = this.#bucketOf(connection);
    let before: Connection | null = null;
    let each: Connection | null = this.#buckets[bucket]!;
    while (each !== null && each !== connection) {
      before = each;
      each = each.next;
    }
    if (each === null) return;
    if (before === null) this.#buckets[bucket] = each.next;
    else before.next = each.next;
    each.next = null;
    this.size--;
  }

  /** All of them, as they are now. */
  all(): Connection[] {
    const all: Connection[] = [];
    for (let each of this.#buckets) {
      for (; each !== null; each = each.next) all.push(each);
    }
    return all;
  }

  #bucketOf({ path, localPort, guestPort }: Connection): number {
    return this.#hash(path.source, localPort, path.destination, guestPort);
  }

  #hash(local: AddressWords, localPort: number, guest: AddressWords, guestPort: number): number {
    const secret = this.#secret;
    let hash = secret[0]!;
    for (let i = 0; i < 4; i++) {
      hash = mix(hash, local[i]! ^ secret[1]!);
      hash = mix(hash, guest[i]! ^ secret[2]!);
    }
    hash = mix(hash, ((localPort << 16) | guestPort) ^ secret[3]!);
    return (hash ^ (hash >>> 15)) & (BUCKETS - 1);
  }
}

function mix(hash: number, word: number): number {
  const mixed = Math.imul(hash ^ word, 0x9e37_79b1);
  return mixed ^ (mixed >>> 16);
}

/** Whether two addresses are the same. */
export function equal(a: AddressWords, b: AddressWords): boolean {
  return a[3] === b[3] && a[2] === b[2] && a[1] === b[1] && a[0] === b[0];
}
