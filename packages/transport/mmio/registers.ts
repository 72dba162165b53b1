/** Offsets of the MMIO registers (virtio 1.4, 4.2.2), with the names of the standard. */

/** MagicValue, R. */
export const VIRTIO_MMIO_MAGIC_VALUE = 0x000;
/** Version, R. */
export const VIRTIO_MMIO_VERSION = 0x004;
/** DeviceID, R. */
export const VIRTIO_MMIO_DEVICE_ID = 0x008;
/** VendorID, R. */
export const VIRTIO_MMIO_VENDOR_ID = 0x00c;
/** DeviceFeatures, R. */
export const VIRTIO_MMIO_DEVICE_FEATURES = 0x010;
/** DeviceFeaturesSel, W. */
export const VIRTIO_MMIO_DEVICE_FEATURES_SEL = 0x014;
/** DriverFeatures, W. */
export const VIRTIO_MMIO_DRIVER_FEATURES = 0x020;
/** DriverFeaturesSel, W. */
export const VIRTIO_MMIO_DRIVER_FEATURES_SEL = 0x024;
/** QueueSel, W. */
export const VIRTIO_MMIO_QUEUE_SEL = 0x030;
/** QueueSizeMax, R. */
export const VIRTIO_MMIO_QUEUE_SIZE_MAX = 0x034;
/** QueueSize, W. */
export const VIRTIO_MMIO_QUEUE_SIZE = 0x038;
/** QueueReady, RW. */
export const VIRTIO_MMIO_QUEUE_READY = 0x044;
/** QueueNotify, W. */
export const VIRTIO_MMIO_QUEUE_NOTIFY = 0x050;
/** InterruptStatus, R. */
export const VIRTIO_MMIO_INTERRUPT_STATUS = 0x060;
/** InterruptACK, W. */
export const VIRTIO_MMIO_INTERRUPT_ACK = 0x064;
/** Status, RW. */
export const VIRTIO_MMIO_STATUS = 0x070;
/** QueueDescLow, W; the high half follows. */
export const VIRTIO_MMIO_QUEUE_DESC_LOW = 0x080;
/** QueueDescHigh, W. */
export const VIRTIO_MMIO_QUEUE_DESC_HIGH = 0x084;
/** QueueDriverLow, W. */
export const VIRTIO_MMIO_QUEUE_DRIVER_LOW = 0x090;
/** QueueDriverHigh, W. */
export const VIRTIO_MMIO_QUEUE_DRIVER_HIGH = 0x094;
/** QueueDeviceLow, W. */
export const VIRTIO_MMIO_QUEUE_DEVICE_LOW = 0x0a0;
/** QueueDeviceHigh, W. */
export const VIRTIO_MMIO_QUEUE_DEVICE_HIGH = 0x0a4;
/** SHMSel, W. */
export const VIRTIO_MMIO_SHM_SEL = 0x0ac;
/** SHMLenLow, R. */
export const VIRTIO_MMIO_SHM_LEN_LOW = 0x0b0;
/** SHMLenHigh, R. */
export const VIRTIO_MMIO_SHM_LEN_HIGH = 0x0b4;
/** SHMBaseLow, R. */
export const VIRTIO_MMIO_SHM_BASE_LOW = 0x0b8;
/** SHMBaseHigh, R. */
export const VIRTIO_MMIO_SHM_BASE_HIGH = 0x0bc;
/** QueueReset, RW. */
export const VIRTIO_MMIO_QUEUE_RESET = 0x0c0;
/** ConfigGeneration, R. */
export const VIRTIO_MMIO_CONFIG_GENERATION = 0x0fc;
/** Config, RW: the device-specific configuration space starts here. */
export const VIRTIO_MMIO_CONFIG = 0x100;

/** What MagicValue reads: "virt". */
export const VIRTIO_MMIO_MAGIC = 0x74726976;
/** InterruptStatus: a used buffer notification. */
export const VIRTIO_MMIO_INT_VRING = 1;
/** InterruptStatus: a configuration change notification. */
export const VIRTIO_MMIO_INT_CONFIG = 2;
