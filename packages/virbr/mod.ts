/**
 * What libvirt's default network is, as one object in user space: a switch, DHCP, DNS, and the way out.
 *
 * This module is browser compatible.
 *
 * @module
 */
export { type AddressWords, type Guest, IpProtocol } from "./ip/packet.ts";
