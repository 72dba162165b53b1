import { connectMany } from "./vhost_user_many.ts";

Deno.test("Ten thousand front ends leave no descriptor and no mapping", async () => {
  await connectMany(10_000);
});
