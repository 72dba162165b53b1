/** Statements of 5.2 without a test, each with the reason. */

const ZONED_DEVICE = "VIRTIO_BLK_F_ZONED is not built: the device never offers it";
const ZONED_DRIVER = "VIRTIO_BLK_F_ZONED is not built: the driver never accepts it";

function numbered(section: string, from: number, to: number, reason: string): [string, string][] {
  return Array.from({ length: to - from + 1 }, (_, i) => [`${section}${from + i}`, reason]);
}

/** Statements about what is not built. */
export const notBuilt: Record<string, string> = Object.fromEntries([
  [
    "5.2.5.1-G6",
    "The driver does not look at the zone model: a host-managed device refuses it (5.2.5.2)",
  ],
  ...numbered("5.2.5.1-G", 8, 10, ZONED_DRIVER),
  ...numbered("5.2.5.2-D", 7, 19, ZONED_DEVICE),
  ...numbered("5.2.6.1-G", 17, 27, ZONED_DRIVER),
  ...numbered("5.2.6.2-D", 17, 40, ZONED_DEVICE),
]);

/** Statements that cannot apply. */
export const excluded: Record<string, string> = {
  "5.2.5.2-D5": "For legacy devices: there is no legacy interface here",
};
