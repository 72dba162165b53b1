import type { ChainReader } from "@virtio/vring";
import { isBytes, isCount, isCounts, malformed, record } from "./saved.ts";

/** What the device says about itself in its configuration space (virtio 1.4, 5.1.4). */
export interface RssLimits {
  /** `supported_hash_types`. */
  readonly hashTypes: number;
  /** `rss_max_key_size`, 40 to 255. */
  readonly keySize: number;
  /** `rss_max_indirection_table_length`, 128 to 32768. */
  readonly tableLength: number;
}

/** `reserved` of `struct rss_rq_id`. */
const RESERVED = 0x8000;
/** Bytes of `struct virtio_net_hash_config` without the key. */
const HASH_CONFIG_SIZE = 13;
/** Bytes of `struct virtio_net_rss_config` with one entry in its table, without the key. */
const RSS_CONFIG_SIZE = 13;

/** Parameters of receive-side scaling as plain data. */
export interface SavedRss {
  /** Enabled hash types. */
  readonly hashTypes: number;
  /** The key. */
  readonly key: readonly number[];
  /** Pair for what has no hash. */
  readonly unclassified: number;
  /** The indirection table: pairs. */
  readonly table: readonly number[];
  /** `max_tx_vq`. */
  readonly transmitPairs: number;
}

/**
 * What is hashed, with which key, and where it leads: what VIRTIO_NET_CTRL_MQ_RSS_CONFIG (virtio 1.4, 5.1.9.5.7.1) and
 * VIRTIO_NET_CTRL_MQ_HASH_CONFIG (5.1.9.5.6.4) say. A receive queue is given as the number of its pair, from 0, which is
 * what `vq_index_1_16` comes to.
 */
export class RssConfig {
  /** Enabled hash types; none at first. */
  hashTypes = 0;
  /** Pair for what has no hash. */
  unclassified = 0;
  /** `indirection_table_mask`. */
  mask = 0;
  /** The indirection table; `mask + 1` entries count. */
  readonly table: Uint16Array;
  /** `max_tx_vq`. */
  transmitPairs = 1;
  /** One more than the highest pair in the table, or as `unclassified`. */
  receivePairs = 1;
  /** Bytes of the key. */
  keyLength = 0;
  /** The key; `keyLength` bytes count. */
  readonly keyData: Uint8Array;
  readonly #limits: RssLimits;

  /** @param limits What the driver may ask for. */
  constructor(limits: RssLimits) {
    this.#limits = limits;
    this.table = new Uint16Array(limits.tableLength);
    this.keyData = new Uint8Array(limits.keySize);
  }

  /** The key. */
  get key(): Uint8Array {
    return this.keyData.subarray(0, this.keyLength);
  }

  /** Nothing is hashed, and all goes to the first pair. */
  reset(): void {
    this.hashTypes = 0;
    this.keyLength = 0;
    this.#noTable();
  }

  /**
   * Reads a `struct virtio_net_hash_config` that is all that remains.
   *
   * @returns Whether it was right; if not, this object is of no use.
   */
  readHash(reader: ChainReader): boolean {
    if (reader.remaining < HASH_CONFIG_SIZE) return false;
    this.hashTypes = reader.u32();
    const reserved = reader.struct(8);
    if (reader.view.getUint32(reserved) !== 0 || reader.view.getUint32(reserved + 4) !== 0) {
      return false;
    }
    this.#noTable();
    return this.#readKey(reader);
  }

  /**
   * Reads a `struct virtio_net_rss_config` that is all that remains.
   *
   * @param pairs How many there are.
   * @returns Whether it was right; if not, this object is of no use.
   */
  readRss(reader: ChainReader, pairs: number): boolean {
    if (reader.remaining < RSS_CONFIG_SIZE) return false;
    this.hashTypes = reader.u32();
    const mask = reader.u16();
    // A power of two has no bit in common with what is one less.
    if (mask >= this.#limits.tableLength || (mask & (mask + 1)) !== 0) return false;
    if (reader.remaining < 2 + 2 * (mask + 1) + 3) return false;
    const unclassified = reader.u16();
    let highest = unclassified;
    let all = unclassified;
    for (let i = 0; i <= mask; i++) {
      const pair = reader.u16();
      this.table[i] = pair;
      all |= pair;
      if (pair > highest) highest = pair;
    }
    if ((all & RESERVED) !== 0 || highest >= pairs) return false;
    const transmitPairs = reader.u16();
    if (transmitPairs < 1 || transmitPairs > pairs) return false;
    this.mask = mask;
    this.unclassified = unclassified;
    this.receivePairs = highest + 1;
    this.transmitPairs = transmitPairs;
    return this.#readKey(reader);
  }

  /** What `restore` takes. */
  save(): SavedRss {
    return {
      hashTypes: this.hashTypes,
      key: [...this.key],
      unclassified: this.unclassified,
      table: [...this.table.subarray(0, this.mask + 1)],
      transmitPairs: this.transmitPairs,
    };
  }

  /** Checks what `save` gave. @throws {TypeError} If it is malformed, or asks for more than this device has. */
  check(saved: unknown, pairs: number): SavedRss {
    const state = record<SavedRss>(saved, "receive-side scaling");
    const { tableLength, keySize, hashTypes } = this.#limits;
    const entries = Array.isArray(state.table) ? state.table.length : 0;
    const keyLength = Array.isArray(state.key) ? state.key.length : 0;
    if (
      !isCount(state.hashTypes, 2 ** 32 - 1) || (state.hashTypes & ~hashTypes) !== 0 ||
      keyLength > keySize || !isBytes(state.key, keyLength) ||
      keyLength === 0 && state.hashTypes !== 0 ||
      entries < 1 || entries > tableLength || (entries & (entries - 1)) !== 0 ||
      !isCounts(state.table, entries, pairs - 1) || !isCount(state.unclassified, pairs - 1) ||
      !isCount(state.transmitPairs, pairs) || state.transmitPairs < 1
    ) throw malformed("receive-side scaling");
    return state;
  }

  /** Takes over what `check` gave back. */
  restore(state: SavedRss): void {
    this.hashTypes = state.hashTypes;
    this.keyLength = state.key.length;
    this.keyData.set(state.key);
    this.unclassified = state.unclassified;
    this.mask = state.table.length - 1;
    this.table.set(state.table);
    this.transmitPairs = state.transmitPairs;
    this.receivePairs = state.table.reduce((a, b) => Math.max(a, b), state.unclassified) + 1;
  }

  #noTable(): void {
    this.unclassified = 0;
    this.mask = 0;
    this.table[0] = 0;
    this.transmitPairs = 1;
    this.receivePairs = 1;
  }

  /** Reads the end of both structures, and checks the hash types. */
  #readKey(reader: ChainReader): boolean {
    const length = reader.u8();
    if (length > this.#limits.keySize || reader.remaining !== length) return false;
    if ((this.hashTypes & ~this.#limits.hashTypes) !== 0) return false;
    // There is no hash without a key.
    if (length === 0 && this.hashTypes !== 0) return false;
    this.keyLength = length;
    reader.readInto(this.keyData, 0, length);
    return true;
  }
}
