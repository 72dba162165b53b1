/** What the example counts, and how it shows it. */
import type { NetDevice } from "@virtio/net";
import type { QueueCounters } from "@virtio/device";
import { type QueueFigures, queueFigures, ratio, table } from "../shared/figures.ts";

/** What a card counts. */
export interface CardCounts {
  readonly framesSent: number;
  readonly bytesSent: number;
  readonly framesReceived: number;
  readonly bytesReceived: number;
  /** Frames, both ways, that went through as the drivers left them: to be segmented by nobody. */
  readonly unsegmented: number;
  /** Frames dropped for want of room or for breaking a rule. */
  readonly dropped: number;
}

/** The figures of one guest's card. */
export interface CardFigures extends CardCounts, QueueFigures {
  readonly name: string;
  /** Times that the driver's processor left its code for the host: register accesses, kicks among them. */
  readonly exits: number;
}

/** The figures of a run. */
export interface Figures {
  readonly cards: readonly CardFigures[];
}

/** Reads a device's counters. @param lost Frames that its cable dropped. */
export function countCard({ stats }: NetDevice, lost = 0): CardCounts {
  return {
    framesSent: stats.framesSent,
    bytesSent: stats.bytesSent,
    framesReceived: stats.framesReceived,
    bytesReceived: stats.bytesReceived,
    unsegmented: stats.received.reduce((sum, { gsoFrames }) => sum + gsoFrames, 0) +
      stats.sent.reduce((sum, { gsoFrames, cutFrames }) => sum + gsoFrames - cutFrames, 0),
    dropped: stats.dropped + lost,
  };
}

/** What a card counted, wherever it is. */
export interface Counted {
  readonly counts: CardCounts;
  readonly queueCounters: readonly Readonly<QueueCounters>[];
}

/** Puts the figures of a card together. */
export function readCard(
  name: string,
  { counts, queueCounters }: Counted,
  exits: number,
): CardFigures {
  return { name, ...counts, ...queueFigures(queueCounters), exits };
}

/** The table that the user sees at the end. */
export function figureTable({ cards }: Figures): string {
  const row = (name: string, of: (card: CardFigures) => number): string[] => [
    name,
    ...cards.map((card) => String(of(card))),
  ];
  const frames = cards.reduce((sum, card) => sum + card.framesSent + card.framesReceived, 0);
  const each = (of: (card: CardFigures) => number): string =>
    `${ratio(cards.reduce((sum, card) => sum + of(card), 0), frames)} a frame`;
  return table([
    ["", ...cards.map(({ name }) => name)],
    row("frames sent", (card) => card.framesSent),
    row("bytes sent", (card) => card.bytesSent),
    row("frames received", (card) => card.framesReceived),
    row("bytes received", (card) => card.bytesReceived),
    row("unsegmented", (card) => card.unsegmented),
    row("dropped", (card) => card.dropped),
    row("kicks", (card) => card.kicks),
    row("interrupts", (card) => card.interrupts),
    row("descriptors", (card) => card.descriptors),
    row("exits to the host", (card) => card.exits),
  ], {
    kicks: each((card) => card.kicks),
    interrupts: each((card) => card.interrupts),
    descriptors: each((card) => card.descriptors),
    "exits to the host": each((card) => card.exits),
  });
}
