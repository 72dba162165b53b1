import { RunError } from "../shared/run.ts";

/** Waits for something that takes some turns of the event loop. @throws {RunError} If it does not happen. */
export async function until(happened: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!happened()) {
    if (performance.now() > end) throw new RunError("The other side did not answer within 10 s");
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}
