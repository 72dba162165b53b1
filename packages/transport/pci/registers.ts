/** Registers of the PCI configuration space and of virtio's structures (virtio 1.4, 4.1), with the names of the standards. */

/** Vendor ID of all virtio devices (4.1.2.1). */
export const PCI_VENDOR_ID_VIRTIO = 0x1af4;
/** PCI Device ID of device type 0; the type is added (4.1.2). */
export const PCI_DEVICE_ID_VIRTIO_BASE = 0x1040;

/** Configuration space: Vendor ID, 16 bits. */
export const PCI_VENDOR_ID = 0x00;
/** Configuration space: Device ID, 16 bits. */
export const PCI_DEVICE_ID = 0x02;
/** Configuration space: Command, 16 bits. */
export const PCI_COMMAND = 0x04;
/** Configuration space: Status, 16 bits. */
export const PCI_STATUS = 0x06;
/** Configuration space: Revision ID, 8 bits. */
export const PCI_REVISION_ID = 0x08;
/** Configuration space: Class Code, 24 bits. */
export const PCI_CLASS_CODE = 0x09;
/** Configuration space: the first of six Base Address registers. */
export const PCI_BASE_ADDRESS_0 = 0x10;
/** Configuration space: Subsystem Vendor ID, 16 bits. */
export const PCI_SUBSYSTEM_VENDOR_ID = 0x2c;
/** Configuration space: Subsystem ID, 16 bits. */
export const PCI_SUBSYSTEM_ID = 0x2e;
/** Configuration space: Capabilities Pointer, 8 bits. */
export const PCI_CAPABILITY_LIST = 0x34;
/** Configuration space: Interrupt Line, 8 bits. */
export const PCI_INTERRUPT_LINE = 0x3c;
/** Configuration space: Interrupt Pin, 8 bits. */
export const PCI_INTERRUPT_PIN = 0x3d;
/** Bytes of the configuration space. */
export const PCI_CONFIG_SIZE = 256;

/** Command: the function answers in I/O space. */
export const PCI_COMMAND_IO = 0x1;
/** Command: the function answers in memory space. */
export const PCI_COMMAND_MEMORY = 0x2;
/** Command: the function may read and write memory, and so send messages. */
export const PCI_COMMAND_MASTER = 0x4;
/** Command: the function may not assert INTx. */
export const PCI_COMMAND_INTX_DISABLE = 0x400;
/** Status: an INTx interrupt is pending. */
export const PCI_STATUS_INTERRUPT = 0x8;
/** Status: there is a capability list. */
export const PCI_STATUS_CAP_LIST = 0x10;

/** BAR: I/O space. */
export const PCI_BASE_ADDRESS_SPACE_IO = 0x1;
/** BAR: 64 bits wide. */
export const PCI_BASE_ADDRESS_MEM_TYPE_64 = 0x4;
/** BAR: reads have no side effects. */
export const PCI_BASE_ADDRESS_MEM_PREFETCH = 0x8;

/** Capability: vendor-specific. */
export const PCI_CAP_ID_VNDR = 0x09;
/** Capability: MSI-X. */
export const PCI_CAP_ID_MSIX = 0x11;

/** MSI-X Message Control: all vectors are masked. */
export const PCI_MSIX_FLAGS_MASKALL = 0x4000;
/** MSI-X Message Control: messages instead of INTx. */
export const PCI_MSIX_FLAGS_ENABLE = 0x8000;
/** Bytes of an MSI-X table entry: address, upper address, data, vector control. */
export const PCI_MSIX_ENTRY_SIZE = 16;
/** Most vectors that an MSI-X table can have. */
export const PCI_MSIX_MAX_VECTORS = 0x800;

/** cfg_type: common configuration (4.1.4.3). */
export const VIRTIO_PCI_CAP_COMMON_CFG = 1;
/** cfg_type: notifications (4.1.4.4). */
export const VIRTIO_PCI_CAP_NOTIFY_CFG = 2;
/** cfg_type: ISR status (4.1.4.5). */
export const VIRTIO_PCI_CAP_ISR_CFG = 3;
/** cfg_type: device-specific configuration (4.1.4.6). */
export const VIRTIO_PCI_CAP_DEVICE_CFG = 4;
/** cfg_type: PCI configuration access (4.1.4.9). */
export const VIRTIO_PCI_CAP_PCI_CFG = 5;
/** cfg_type: shared memory region (4.1.4.7). */
export const VIRTIO_PCI_CAP_SHARED_MEMORY_CFG = 8;
/** cfg_type: vendor-specific data (4.1.4.8). */
export const VIRTIO_PCI_CAP_VENDOR_CFG = 9;

/** Fields of struct virtio_pci_cap, and of the structures that begin with it. */
export const PciCap = {
  vndr: 0,
  next: 1,
  len: 2,
  cfgType: 3,
  bar: 4,
  id: 5,
  offset: 8,
  length: 12,
  /** Bytes of struct virtio_pci_cap. */
  size: 16,
  /** virtio_pci_notify_cap.notify_off_multiplier. */
  notifyOffMultiplier: 16,
  /** virtio_pci_cap64.offset_hi. */
  offsetHi: 16,
  /** virtio_pci_cap64.length_hi. */
  lengthHi: 20,
  /** virtio_pci_cfg_cap.pci_cfg_data. */
  pciCfgData: 16,
  /** virtio_pci_vndr_data.vendor_id. */
  vendorId: 4,
  /** Where the vendor's own bytes begin. */
  vendorData: 6,
} as const;

/** Fields of struct virtio_pci_common_cfg (4.1.4.3). */
export const CommonCfg = {
  deviceFeatureSelect: 0x00,
  deviceFeature: 0x04,
  driverFeatureSelect: 0x08,
  driverFeature: 0x0c,
  configMsixVector: 0x10,
  numQueues: 0x12,
  deviceStatus: 0x14,
  configGeneration: 0x15,
  queueSelect: 0x16,
  queueSize: 0x18,
  queueMsixVector: 0x1a,
  queueEnable: 0x1c,
  queueNotifyOff: 0x1e,
  queueDesc: 0x20,
  queueDriver: 0x28,
  queueDevice: 0x30,
  queueNotifConfigData: 0x38,
  queueReset: 0x3a,
  adminQueueIndex: 0x3c,
  adminQueueNum: 0x3e,
  /** Bytes of the structure. */
  size: 0x40,
  /** Bytes of the structure as virtio 1.0 had it; the fields after them depend on feature bits. */
  minSize: 0x38,
} as const;

/** config_msix_vector and queue_msix_vector: no interrupts (4.1.5.1.2). */
export const VIRTIO_MSI_NO_VECTOR = 0xffff;

/** ISR status: a queue interrupt. */
export const VIRTIO_PCI_ISR_QUEUE = 1;
/** ISR status: a device configuration interrupt. */
export const VIRTIO_PCI_ISR_CONFIG = 2;
