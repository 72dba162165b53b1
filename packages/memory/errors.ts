/** A guest-physical range that no region holds whole. Thrown by every checked access of {@link GuestMemory}. */
export class AddressError extends RangeError {
  override readonly name = "AddressError";
  /** First guest-physical address of the range. */
  readonly address: number;
  /** Length of the range in bytes. */
  readonly length: number;

  /** Describes the range `[address, address + length)`. */
  constructor(address: number, length: number) {
    super(`No guest memory at 0x${address.toString(16)} for ${length} bytes`);
    this.address = address;
    this.length = length;
  }
}
