/** Statements of virtio 1.4, 2, 3 and 6, without a test, each with the reason. */

const NO_IOMMU =
  "There is no IOMMU: the devices here run in the driver's machine monitor and use guest-physical addresses";
const NO_HARDWARE =
  "Devices and drivers here meet in the memory of one machine; no device is hardware of its own";

/** Statements that cannot apply. */
export const excluded: Record<string, string> = {
  "6.1-G3": NO_IOMMU,
  "6.1-G6": NO_HARDWARE,
  "6.1-G7": NO_HARDWARE,
  "6.2-D3": NO_IOMMU,
  "6.2-D4": "ACCESS_PLATFORM is never offered, so there is none to insist on",
  "6.2-D6": "ORDER_PLATFORM is never offered, so there is none to insist on",
  "6.2-D7": "ORDER_PLATFORM is never offered, so there is no slower mode without it",
  "6.2-D8": "No device here is an add-in card",
};

const SR_IOV = "SR-IOV is not built: the driver never accepts VIRTIO_F_SR_IOV";

/** Statements about what is not built. */
export const notBuilt: Record<string, string> = {
  "6.1-G8": SR_IOV,
  "6.1-G10": SR_IOV,
  "6.1-G11": SR_IOV,
};
