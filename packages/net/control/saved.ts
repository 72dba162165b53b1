/** Checks of saved states, which come from files that anybody may have written. */

/** Whether it is an integer from 0 to `max`. */
export function isCount(value: unknown, max: number = Number.MAX_SAFE_INTEGER): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max;
}

/** Whether it is an array of at most `max` values that are all right; a hole is undefined. */
export function isList(value: unknown, max: number, right: (one: unknown) => boolean): boolean {
  if (!Array.isArray(value) || value.length > max) return false;
  for (let i = 0; i < value.length; i++) {
    if (!right(value[i])) return false;
  }
  return true;
}

/** Whether it is an array of exactly `length` integers from 0 to `max`. */
export function isCounts(value: unknown, length: number, max: number): value is number[] {
  return isList(value, length, (one) => isCount(one, max)) && (value as number[]).length === length;
}

/** Whether it is an array of exactly `length` bytes. */
export function isBytes(value: unknown, length: number): value is number[] {
  return isCounts(value, length, 255);
}

/** A part of a saved state, whose fields are still to be checked. @throws {TypeError} If it is no object. */
export function record<T>(value: unknown, part: string): T {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw malformed(part);
  return value as T;
}

/** The error for a part that is not as it should be. */
export function malformed(part: string): TypeError {
  return new TypeError(`Cannot restore a network device: its saved ${part} is malformed`);
}
