/** What lies between a transport and its device while the device is live. */
import type { GuestMemory } from "@virtio/memory";
import type { Activation, Interrupt } from "./device.ts";
import type { FeatureSet } from "./features.ts";

/** What a transport gives its `DeviceState`. */
export interface DeviceStateOptions {
  /** Guest memory. */
  readonly memory: GuestMemory;
  /** The way to the driver. Called only while the device is live. */
  readonly interrupt: Interrupt;
  /** Which of the feature bits 24 to 43 the transport can carry. */
  readonly carries: FeatureSet;
  /** Feature bits 24 to 43 to offer; `DEFAULT_FEATURES` unless given. VERSION_1 is always offered (6.2). */
  readonly features?: FeatureSet;
  /** Told why the device asked for a reset. */
  readonly onError?: (error: Error) => void;
  /** Told when a reset is complete, to reset what the transport keeps (vectors, interrupt status). */
  readonly onReset?: () => void;
}

/** Whose activation it is. */
interface ActivationHost {
  /** Whether this activation is that of the device's life now. */
  readonly isCurrent: (activation: Activation) => boolean;
  /** Asks for a reset. */
  readonly fail: (error: unknown) => void;
}

/** What a device is started with. It is dead as soon as it is not the current one any more. */
export function makeActivation(
  { interrupt, memory }: DeviceStateOptions,
  features: FeatureSet,
  host: ActivationHost,
): Activation {
  // 2.4.1: after a reset, nothing of an earlier life may notify.
  const isLive = (): boolean => host.isCurrent(activation);
  const activation: Activation = {
    memory,
    features,
    interrupt: {
      queue: (index) => {
        if (isLive()) interrupt.queue(index);
      },
      config: () => {
        if (isLive()) interrupt.config();
      },
    },
    fail: (error) => {
      if (isLive()) host.fail(error);
    },
  };
  return activation;
}

/** What was thrown, as an error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
