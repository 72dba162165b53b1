import { assertEquals, assertRejects } from "@std/assert";
import { FileLeaseStore } from "./deno_leases.ts";

Deno.test("leases are kept in a file, which is replaced as a whole", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/leases.json`;
    const store = new FileLeaseStore(path);
    assertEquals(await store.load(), []);
    const leases = [
      { mac: "52:54:00:00:00:01", address: "192.168.122.2", name: "alpha", expires: 1e12 },
    ];
    await store.save(leases);
    assertEquals(await new FileLeaseStore(path).load(), leases);
    assertEquals(Array.from(Deno.readDirSync(folder), ({ name }) => name), ["leases.json"]);
    for (const text of ["", "[]", "null", '{"version":2,"leases":[]}', '{"version":1}']) {
      await Deno.writeTextFile(path, text);
      await assertRejects(() => store.load(), SyntaxError);
    }
    await Deno.writeTextFile(path, '{"version":1,"leases":[null,3,{"mac":"x"}]}');
    assertEquals((await store.load()).length, 1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
