/** What the page and the machine's worker say to each other. */

import type { InspectCommand, Snapshot } from "@virtio/inspect";

/** What a machine is made of. */
export interface StartMessage {
  readonly say: "start";
  /** Number of the guest: its address, its disk and its name follow from it. */
  readonly guest: number;
  /** Bytes of the disk if there is none yet. */
  readonly diskSize: number;
  readonly cols: number;
  readonly rows: number;
}

/** To the machine. */
export type ToMachine =
  | StartMessage
  /** Keys. */
  | { readonly say: "input"; readonly bytes: Uint8Array }
  /** So many bytes of output are on the screen. */
  | { readonly say: "shown"; readonly bytes: number }
  | { readonly say: "resize"; readonly cols: number; readonly rows: number }
  /** Plugs the network cable in or out. */
  | { readonly say: "link"; readonly up: boolean }
  /** Whether the rings are looked at. */
  | { readonly say: "inspect"; readonly on: boolean }
  /** What somebody who looks at the rings wants. */
  | { readonly say: "command"; readonly command: InspectCommand }
  /** Ends the machine; the disk is flushed and closed. */
  | { readonly say: "end" };

/** Figures of one device, since the machine was made. */
export interface DeviceFigures {
  readonly name: string;
  /** What it is, in words for a tooltip. */
  readonly about: string;
  readonly kicks: number;
  readonly interrupts: number;
  readonly chains: number;
  /** Bytes to the guest, and from it. */
  readonly received: number;
  readonly sent: number;
}

/** To the page. */
export type ToPage =
  | { readonly say: "step"; readonly text: string }
  | { readonly say: "output"; readonly bytes: Uint8Array }
  | { readonly say: "running"; readonly diskBytes: number; readonly newDisk: boolean }
  | { readonly say: "figures"; readonly devices: readonly DeviceFigures[]; readonly exits: number }
  | { readonly say: "rings"; readonly snapshot: Snapshot }
  | { readonly say: "stopped"; readonly reason: string }
  | { readonly say: "failed"; readonly reason: string };
