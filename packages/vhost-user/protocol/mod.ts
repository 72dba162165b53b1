/**
 * The messages of vhost-user, for either side: what there is, what each carries, and a socket that sends and receives them.
 *
 * Needs Deno on Linux, as `@virtio/linux` does.
 *
 * @module
 */
export { Channel, Message } from "./channel.ts";
export { ProtocolError } from "./errors.ts";
export * from "./features.ts";
export * from "./messages.ts";
export * from "./payloads.ts";
