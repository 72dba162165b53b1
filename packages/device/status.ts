/** Bits of the device status field (virtio 1.4, 2.1). */

/** The guest has found the device. */
export const VIRTIO_STATUS_ACKNOWLEDGE = 1;
/** The guest knows how to drive the device. */
export const VIRTIO_STATUS_DRIVER = 2;
/** The driver is set up; the device is live. */
export const VIRTIO_STATUS_DRIVER_OK = 4;
/** Feature negotiation is complete. */
export const VIRTIO_STATUS_FEATURES_OK = 8;
/** The driver has suspended the device; needs VIRTIO_F_SUSPEND. */
export const VIRTIO_STATUS_SUSPEND = 16;
/** The device met an error that only a reset ends. */
export const VIRTIO_STATUS_DEVICE_NEEDS_RESET = 64;
/** The driver has given up. */
export const VIRTIO_STATUS_FAILED = 128;
