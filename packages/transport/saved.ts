/** Checks on saved states: they may come from anywhere, so each field is looked at before it is believed. */

/**
 * The value as an integer from `min` to `max`.
 *
 * @throws {TypeError} If it is not an integer.
 * @throws {RangeError} If it is out of range.
 */
export function savedInteger(value: unknown, name: string, min: number, max: number): number {
  if (typeof value !== "number" || !Number.isInteger(value)) {
    throw new TypeError(`Saved state: ${name} has to be an integer`);
  }
  if (value < min || value > max) {
    throw new RangeError(`Saved state: ${name} is ${value}, but has to be ${min} to ${max}`);
  }
  return value;
}

/**
 * The value as an array of `length` integers from 0 to `max`.
 *
 * @throws {TypeError} If it is no array, or an element is no integer.
 * @throws {RangeError} If its length is another one, or an element is out of range.
 */
export function savedIntegers(
  value: unknown,
  name: string,
  length: number,
  max: number,
): readonly number[] {
  if (!Array.isArray(value)) throw new TypeError(`Saved state: ${name} has to be an array`);
  if (value.length !== length) {
    throw new RangeError(
      `Saved state: ${name} has ${value.length} elements, but this device needs ${length}`,
    );
  }
  return Array.from(value, (element, i) => savedInteger(element, `${name}[${i}]`, 0, max));
}

/**
 * The value as an object with `version` 1, whose fields are then checked one by one.
 *
 * @throws {TypeError} If it is not.
 */
export function savedObject(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null) {
    throw new TypeError(`Saved state: ${name} has to be an object`);
  }
  const object = value as Record<string, unknown>;
  if (object["version"] !== 1) {
    throw new TypeError(`Saved state: ${name} has to be of version 1`);
  }
  return object;
}
