/** The configuration space as it was read last: registers answer at once, and what takes messages follows. */
import { hasFeature } from "@virtio/device";
import { encodeConfig, FrontEndRequest as Request, ProtocolFeature as P } from "../protocol/mod.ts";
import type { Connection } from "./connection.ts";
import { readConfig } from "./handshake.ts";
import type { Link } from "./link.ts";
import { checkStatus } from "./meet.ts";

/** Used by `FrontEnd`. */
export class ConfigCopy {
  /** What is known. */
  bytes: Uint8Array;
  readonly #link: Link;
  readonly #changed: () => void;
  #refreshing: "no" | "yes" | "again" = "no";

  /** @param changed Told when it was read anew. */
  constructor(link: Link, bytes: Uint8Array, changed: () => void) {
    this.#link = link;
    this.bytes = bytes;
    this.#changed = changed;
  }

  #has(feature: bigint): boolean {
    return hasFeature(this.#link.agreement.protocolFeatures, feature);
  }

  /** Another back end has this one. @returns Whether it is another; nobody was told. */
  replace(bytes: Uint8Array): boolean {
    const before = this.bytes;
    this.bytes = bytes;
    return before.length !== bytes.length || before.some((byte, i) => byte !== bytes[i]);
  }

  /** The driver writes. What is no part of it is ignored. */
  write(offset: number, bytes: Uint8Array): void {
    if (!(offset >= 0 && offset + bytes.length <= this.bytes.length)) return;
    this.bytes.set(bytes, offset);
    void this.#link.inTurn(async (connection) => {
      if (!this.#has(P.CONFIG)) return;
      try {
        await connection.tell(Request.SET_CONFIG, encodeConfig({ offset, flags: 0, bytes }));
      } catch (error) {
        if (!connection.open) throw error;
        // It was refused: what is there now is what counts.
        this.refresh();
      }
    });
  }

  /** The back end has another one: it is read, once more if it changes meanwhile. */
  refresh(): void {
    if (this.#refreshing !== "no") {
      this.#refreshing = "again";
      return;
    }
    this.#refreshing = "yes";
    void this.#link.inTurn((connection) => this.#read(connection)).then(() => {
      const again = this.#refreshing === "again";
      this.#refreshing = "no";
      if (again) this.refresh();
    });
  }

  async #read(connection: Connection): Promise<void> {
    const bytes = await readConfig(connection, this.bytes.length);
    if (this.#has(P.STATUS)) await checkStatus(connection, 0);
    if (bytes === null) return;
    this.bytes = bytes;
    this.#changed();
  }
}
