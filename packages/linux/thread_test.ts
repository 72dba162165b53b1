import { assert, assertNotEquals } from "@std/assert";
import { threadExists, threadId } from "./mod.ts";

Deno.test("a thread is there until its worker ended", async () => {
  const here = threadId();
  assert(threadExists(here));
  const module = `
    import { threadId } from ${JSON.stringify(import.meta.resolve("./mod.ts"))};
    postMessage(threadId());
    onmessage = () => self.close();`;
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(module)}`, {
    type: "module",
  });
  const there = await new Promise<number>((resolve) =>
    worker.onmessage = ({ data }) => resolve(data as number)
  );
  assertNotEquals(there, here);
  assert(threadExists(there));
  worker.postMessage(null);
  while (threadExists(there)) await new Promise((again) => setTimeout(again, 1));
  worker.terminate();
});
