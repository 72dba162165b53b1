import type { QueueConfig, QueuePosition, QueueState } from "./queue.ts";

/**
 * A queue as plain data, of either format.
 *
 * @param inFlight Chains popped and not yet used.
 * @param added Chains used and not yet published.
 * @throws {TypeError} If there are any of these.
 */
export function stateOf(
  config: QueueConfig,
  position: QueuePosition,
  inFlight: number,
  added: number,
): QueueState {
  if (inFlight !== 0 || added !== 0) {
    throw new TypeError(
      `Cannot save a queue with ${inFlight} chains in flight and ${added} not flushed: stop the device first`,
    );
  }
  const { size, descriptorArea, driverArea, deviceArea } = config;
  return { version: 1, size, descriptorArea, driverArea, deviceArea, position };
}
