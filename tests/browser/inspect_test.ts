/** The rings of a program in Deno, seen by a browser: with the secret in the address, and not without. */
import { assert, assertEquals } from "@std/assert";
import { serveInspector } from "../../examples/shared/inspect/serve.ts";
import { Rig, type TestDevice } from "../../packages/device/testing.ts";
import { executable, withPage } from "./page.ts";

async function withServer(
  run: (address: string, rig: Rig) => Promise<void>,
): Promise<void> {
  const rig = new Rig();
  const queue = rig.start(0n);
  for (let i = 0; i < 3; i++) rig.send(queue, i);
  const { device, memory } = rig;
  await using server = await serveInspector([{ name: "Test", device, memory }]);
  await run(server.address, rig);
}

Deno.test("inspect: without its secret the address gives nothing", () =>
  withServer(async (address) => {
    const { origin } = new URL(address);
    for (const path of ["/", "/page.js", "/rings", `/${crypto.randomUUID()}/`]) {
      const response = await fetch(`${origin}${path}`);
      await response.body?.cancel();
      assertEquals(response.status, 403, path);
    }
    const page = await fetch(address);
    assert((await page.text()).includes("<virtio-rings>"));
    const other = await fetch(`${address}nothing`);
    await other.body?.cancel();
    assertEquals(other.status, 404);
  }));

Deno.test("inspect: what is held is let go when the last one who looked has gone", () =>
  withServer(async (address, rig) => {
    const hook = (rig.device as TestDevice).queueHooks[0]!;
    const socket = new WebSocket(`${address.replace("http", "ws")}rings`);
    const seen = await new Promise<string>((resolve) => {
      socket.onmessage = ({ data }) => resolve(data);
    });
    assertEquals(JSON.parse(seen).devices[0].queues[0].size, 8);
    for (const junk of ["", "{", "null", '{"do":"hold","device":7,"queue":0}']) socket.send(junk);
    socket.send(JSON.stringify({ do: "hold", device: 0, queue: 0 }));
    for (let i = 0; i < 100 && !hook.held; i++) await new Promise((next) => setTimeout(next, 5));
    assertEquals(hook.held, true);
    const closed = new Promise((resolve) => socket.onclose = resolve);
    socket.close();
    await closed;
    for (let i = 0; i < 100 && hook.held; i++) await new Promise((next) => setTimeout(next, 5));
    assertEquals(hook.held, false);
  }));

Deno.test({
  name: "inspect: a browser shows the rings of a program in Deno, and steps through them",
  ignore: executable === null,
  fn: () =>
    withServer((address, rig) =>
      withPage({}, async ({ page }) => {
        await page.goto(address);
        const queue = page.locator('section[aria-label="queue 0"]');
        await queue.getByRole("button", { name: "Pause" }).click();
        await queue.getByRole("button", { name: "Continue" }).waitFor();
        rig.state.notify(0);
        await queue.getByRole("button", { name: "Step" }).click();
        await page.waitForFunction(
          `document.querySelector("virtio-rings").shadowRoot
            .querySelector('dd[data-key="chains"]').textContent.startsWith("1 ")`,
        );
        assertEquals((rig.device as TestDevice).handled.length, 1);
      })
    ),
});
