/** Guests are numbered from 1 to this: each has an address and a disk of its own. */
export const GUESTS = 32;

/** Network of the guests; guest N has address N. */
export const NETWORK = "10.99.0";
