/**
 * The network device of virtio 1.4, 5.1.
 *
 * @module
 */
export * from "./constants.ts";
export { Frame, HEAD_SIZE } from "./frame.ts";
export { type FrameSink, type NetBackend, Offload } from "./sink.ts";
