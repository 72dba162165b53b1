import { ETHERNET_HEADER_SIZE } from "./constants.ts";
import type { Frame } from "./frame.ts";
import { ETH_P_8021AD, ETH_P_8021Q } from "./offload/parse.ts";

const TAG_SIZE = 4;

/** Bytes before the packet: what the MTU does not count (5.1.4). */
export function ethernetSize(frame: Frame): number {
  let size = ETHERNET_HEADER_SIZE;
  for (let tags = 0; tags < 2 && size <= frame.headLength; tags++) {
    const type = frame.view.getUint16(size - 2);
    if (type !== ETH_P_8021Q && type !== ETH_P_8021AD) break;
    size += TAG_SIZE;
  }
  return size;
}
