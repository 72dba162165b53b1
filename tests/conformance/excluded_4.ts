/** Statements of virtio 1.4, 4.1 and 4.2, that no test is named after, and why. */

/** Statements that cannot apply here. */
export const excluded: Record<string, string> = {
  "4.1.4.11.0.1-D1":
    "Only for platforms where a legacy driver for the same PCI IDs existed; none did for 0x1041 to 0x107f.",
  "4.1.4.11.0.1-D2":
    "Only for platforms where a legacy driver for the same PCI IDs existed; none did for 0x1041 to 0x107f.",
};

/** Statements about what is not built yet. */
export const notBuilt_4: Record<string, string> = {
  "4.1.4.3.1-D16": "Administration virtqueues (VIRTIO_F_ADMIN_VQ) are not offered.",
  "4.1.4.3.2-G10": "The driver does not accept VIRTIO_F_ADMIN_VQ.",
  "4.1.4.3.2-G11": "The driver does not accept VIRTIO_F_ADMIN_VQ.",
};
