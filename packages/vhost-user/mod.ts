/**
 * Virtio devices served to virtual machines of other processes by vhost-user.
 *
 * Needs Deno on Linux, as `@virtio/linux` does.
 *
 * @module
 */
export { ProtocolError } from "./protocol/errors.ts";
