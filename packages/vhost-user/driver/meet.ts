/** Meeting a back end: a connection, what was agreed on, and who listens. */
import { VIRTIO_STATUS_DEVICE_NEEDS_RESET } from "@virtio/device";
import type { UnixSocket } from "@virtio/linux";
import { decodeU64, FrontEndRequest as Request } from "../protocol/mod.ts";
import { BackEndError, Connection } from "./connection.ts";
import { type Agreement, shakeHands } from "./handshake.ts";
import { MemoryTable } from "./memory_table.ts";
import type { CheckedOptions } from "./options.ts";
import { reactor } from "../backend/reactor.ts";

/** A back end that was met. */
export interface Met {
  readonly connection: Connection;
  readonly agreement: Agreement;
  readonly table: MemoryTable;
  /** Where it is told what the back end does by itself. */
  readonly heard: { configChanged(): void; lost(error: Error): void };
}

/**
 * Negotiates with a back end.
 *
 * @param socket Connected; it is closed if this fails.
 */
export async function meet(socket: UnixSocket, options: CheckedOptions): Promise<Met> {
  const heard: Met["heard"] = { configChanged() {}, lost() {} };
  const connection = new Connection(socket, options.timeout, {
    configChanged: () => heard.configChanged(),
    lost: (error) => heard.lost(error),
  });
  const { deviceType, protocolFeatures, configSize } = options;
  try {
    const agreement = await shakeHands(connection, deviceType, protocolFeatures, configSize);
    return {
      connection,
      agreement,
      heard,
      table: new MemoryTable(connection, agreement.slots),
    };
  } catch (error) {
    connection.close();
    await reactor().idle();
    throw error;
  }
}

/**
 * Asks for the device's status.
 *
 * @param wanted Bits that must be set.
 * @throws {BackEndError} If they are not, or the device asks for a reset.
 */
export async function checkStatus(connection: Connection, wanted: number): Promise<void> {
  const status = await connection.ask(
    Request.GET_STATUS,
    undefined,
    ({ payload }) => Number(decodeU64(payload) & 0xffn),
  );
  if ((status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
    throw new BackEndError("The device asks for a reset (DEVICE_NEEDS_RESET)");
  }
  if ((status & wanted) !== wanted) {
    throw new BackEndError("The back end refuses the features that the driver accepted");
  }
}
