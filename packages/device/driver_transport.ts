import type { QueueConfig } from "@virtio/vring";
import type { FeatureSet } from "./features.ts";

/** What a driver's transport calls when the device interrupts. */
export interface DriverInterrupts {
  /** Used buffers may be there. `index` is null where the transport cannot tell which queue (INTx, MMIO). */
  queue(index: number | null): void;
  /** The configuration, or the status, may have changed. */
  config(): void;
}

/**
 * The driver half of a transport: registers behind plain methods, without any order of its own. `DriverSession` knows the
 * order (virtio 1.4, 3.1).
 */
export interface DriverTransport {
  /** Device type (5). */
  readonly deviceType: number;
  /** Which of the feature bits 24 to 43 a driver may accept on this transport. */
  readonly carries: FeatureSet;
  /** Number of queues, where the transport tells it (PCI: num_queues), else null. */
  readonly queueCount: number | null;
  /** Reads the device status. */
  readStatus(): number;
  /** Writes the device status; 0 resets. */
  writeStatus(status: number): void;
  /** All feature bits that the device offers. */
  readDeviceFeatures(): FeatureSet;
  /** Writes the accepted feature bits, all words. */
  writeDriverFeatures(features: FeatureSet): void;
  /** The configuration's generation. */
  configGeneration(): number;
  /** Reads 1, 2 or 4 bytes of the device's configuration. */
  readConfig(offset: number, size: 1 | 2 | 4): number;
  /** Writes 1, 2 or 4 bytes of the device's configuration. */
  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void;
  /** Largest size of a queue; 0 if there is no such queue. */
  queueMaxSize(index: number): number;
  /** Tells where a queue lies, gives it an interrupt and enables it. */
  enableQueue(index: number, config: QueueConfig): void;
  /** Starts a queue reset (2.6.1). */
  resetQueue(index: number): void;
  /** Whether the queue reset is complete. */
  queueResetDone(index: number): boolean;
  /** Sends an available buffer notification. `data`: next_off | next_wrap << 15, used where NOTIFICATION_DATA was negotiated. */
  kick(index: number, data: number): void;
  /** Tells the transport which features were negotiated: they change the format of a kick (2.9, 4.1.5.2). */
  negotiated(features: FeatureSet): void;
  /** Where interrupts go; null drops them. */
  interrupts: DriverInterrupts | null;
}
