/** The example's disk where it is another program's, by vhost-user. */
import { DeviceId } from "@virtio/device";
import { FrontEndMemory, RemoteDevice } from "@virtio/vhost-user/driver";
import type { Guest } from "../guest/guest.ts";
import { RunError } from "../shared/run.ts";
import { attach, type Attached, type Seat } from "../shared/seat.ts";

/** A disk of another program, in a guest. */
export interface RemoteDisk extends AsyncDisposable, Attached<RemoteDevice> {}

/**
 * Connects to the program and puts its disk into a guest that runs: it finds new hardware.
 *
 * @throws {RunError} If there is no such program, or it does not do as it should.
 */
export async function attachRemote(guest: Guest, seat: Seat, socket: string): Promise<RemoteDisk> {
  const { machine } = guest;
  const { size } = machine.memory.regions[0]!;
  const memory = new FrontEndMemory([{ base: 0, size, descriptor: machine.memoryDescriptor! }]);
  let device: RemoteDevice;
  try {
    device = await RemoteDevice.connect(socket, { deviceType: DeviceId.block, memory });
  } catch (error) {
    memory.close();
    throw new RunError(`${socket} has no disk by vhost-user: ${(error as Error).message}`);
  }
  const { errors } = attach(machine, seat, device, 0, device.ringFeatures);
  if (seat.transport === "pci") await guest.rescanPci();
  return {
    device,
    errors,
    async [Symbol.asyncDispose](): Promise<void> {
      await device.close();
      memory.close();
    },
  };
}
