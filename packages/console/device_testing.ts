/** What tests of the console device begin with. Not published. */
import { ConsoleDevice, type ConsoleDeviceOptions, VIRTIO_CONSOLE_PORT_OPEN } from "./mod.ts";
import { RawConsoleDriver, SpyConsole } from "./testing.ts";

/** Text as bytes. */
export const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A device with ports 0 and 1 whose driver has both ready and open. */
export async function running(options: ConsoleDeviceOptions = {}) {
  const console = new SpyConsole();
  const agent = new SpyConsole();
  const device = new ConsoleDevice({
    ports: [{ backend: console }, { backend: agent, name: "agent" }],
    maxPorts: 4,
    ...options,
  });
  const driver = await RawConsoleDriver.open(device);
  driver.ready(48);
  await driver.portReady(0);
  await driver.portReady(1);
  driver.messages();
  console.told.length = agent.told.length = 0;
  return { device, driver, console, agent };
}

/** The message that a port was opened (1) or closed (0). */
export const open = (id: number, value: number) => ({ id, event: VIRTIO_CONSOLE_PORT_OPEN, value });
