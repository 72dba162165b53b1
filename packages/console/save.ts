import type { ControlChannel } from "./control_channel.ts";
import type { ConsoleOutput } from "./output.ts";
import type { PortState } from "./port_state.ts";
import type { SavedConsole, SavedInput, SavedPort } from "./saved.ts";

/**
 * The state of a console device as plain data.
 *
 * @param states The ports that are there, by number.
 * @param control What the driver knows of ports.
 */
export function saveConsole(
  states: readonly (PortState | null)[],
  control: ControlChannel,
  output: ConsoleOutput,
): SavedConsole {
  const ports: SavedPort[] = [];
  const inputs: SavedInput[] = [];
  for (let id = 0; id < states.length; id++) {
    const here = states[id]!;
    if (here !== null && here.input.length > 0) {
      inputs.push({ id, name: here.name, bytes: here.input.copy() });
    }
    const known = control.announced[id]!;
    if (known === null) continue;
    const { name, ready, failed, guestOpen, toldOpen, due, size } = known;
    const gone = known !== here;
    ports.push({ id, name, gone, ready, failed, guestOpen, toldOpen, due, size });
  }
  return {
    version: 1,
    maxPorts: states.length,
    driverReady: control.driverReady,
    ports,
    inputs,
    taken: output.taken.slice(),
  };
}

/** Gives the ports that are still there the input that waited for the guest. */
export function restoreInputs(
  states: readonly (PortState | null)[],
  inputs: readonly SavedInput[],
): void {
  for (const { id, name, bytes } of inputs) {
    const here = states[id]!;
    if (here === null || here.name !== name) continue;
    here.input.drop(here.input.length);
    here.input.push(bytes, 0, bytes.length);
  }
}
