/**
 * Looks at devices while they run: what lies in their rings, what they have in hand, what it costs. `@virtio/inspect/element`
 * is the picture of it, for a page.
 *
 * This module is browser compatible.
 *
 * @module
 */
export { type Explanation, EXPLANATIONS, flagNames } from "./explain.ts";
export { type Inspectable, type InspectedDevice, Inspector } from "./inspector.ts";
export { SHOWN_SLOTS } from "./slots.ts";
export type {
  ChainView,
  DeviceView,
  FieldView,
  InspectCommand,
  QueueView,
  SlotState,
  SlotView,
  Snapshot,
} from "./snapshot.ts";
