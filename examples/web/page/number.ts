/** Which guest this tab is. */
import { GUESTS } from "../numbers.ts";

/**
 * Takes the lowest number that no other tab has, for as long as this one lives.
 *
 * @returns Null if all are taken.
 */
export async function takeNumber(): Promise<number | null> {
  for (let number = 1; number <= GUESTS; number++) {
    const taken = await new Promise<boolean>((resolve) => {
      navigator.locks.request(`virtio guest ${number}`, { ifAvailable: true }, (lock) => {
        resolve(lock !== null);
        // Held until the tab is gone.
        return lock === null ? undefined : new Promise(() => {});
      });
    });
    if (taken) return number;
  }
  return null;
}
