/**
 * Checks a number that the embedder gave: an option, or an argument.
 *
 * @param name What the embedder calls it; the error's sentence begins with it.
 * @param value What was given; undefined if nothing was.
 * @param min Smallest value allowed.
 * @param max Largest value allowed; Infinity if any integer that a number can count to is.
 * @param otherwise What an option is unless given. It is not checked, so it may say that the option was left out. Without it
 * a value is needed.
 * @returns The value, or `otherwise`.
 * @throws {RangeError} If the value is no integer from `min` to `max`.
 *
 * @example
 * ```ts
 * import { checkInteger } from "@virtio/device";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const options: { queueSize?: number } = {};
 * assertEquals(checkInteger("queueSize", options.queueSize, 1, 32768, 256), 256);
 * assertThrows(
 *   () => checkInteger("queueSize", 0.5, 1, 32768),
 *   RangeError,
 *   "queueSize must be an integer from 1 to 32768: it is 0.5",
 * );
 * ```
 */
export function checkInteger(
  name: string,
  value: number | undefined,
  min: number,
  max: number,
  otherwise?: number,
): number {
  if (value === undefined && otherwise !== undefined) return otherwise;
  if (value === undefined || !Number.isSafeInteger(value) || value < min || value > max) {
    const range = max === Infinity ? `of ${min} or more` : `from ${min} to ${max}`;
    throw new RangeError(`${name} must be an integer ${range}: it is ${String(value)}`);
  }
  return value;
}
