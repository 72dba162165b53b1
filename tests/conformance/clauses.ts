/**
 * The normative statements of virtio 1.4 that are in scope: id, side, level; none of their text. An id is the number of the
 * section, then D (device) or G (driver), then the statement's number there.
 *
 * A later chapter comes in by adding its area here; `deno task conformance` then fails until each of its statements is tested
 * or excluded.
 */

/** Whom a statement binds. */
export type Side = "device" | "driver";
/** The strongest keyword of a statement. */
export type Level = "MUST" | "SHOULD" | "MAY";

/** One statement. */
export interface Clause {
  readonly id: string;
  readonly side: Side;
  readonly level: Level;
}

/** A part of the standard. */
export interface Area {
  /** Its number. */
  readonly number: string;
  /** What it is about. */
  readonly name: string;
  readonly clauses: readonly Clause[];
}

function area(number: string, name: string, lines: string): Area {
  const clauses = lines.trim().split("\n").map((line): Clause => {
    const [id, side, level] = line.trim().split(" ") as [string, Side, Level];
    return { id, side, level };
  });
  return { number, name, clauses };
}

/** The areas in scope, in the order of the standard. */
export const areas: readonly Area[] = [
  area(
    "2.1",
    "Device status",
    `
2.1.1-G1 driver MUST
2.1.1-G2 driver MUST
2.1.1-G3 driver MUST
2.1.1-G4 driver SHOULD
2.1.2-D1 device MUST
2.1.2-D2 device SHOULD
2.1.2-D3 device MUST
`,
  ),
  area(
    "2.2",
    "Feature bits",
    `
2.2.1-G1 driver MUST
2.2.1-G2 driver MUST
2.2.1-G3 driver MUST
2.2.1-G4 driver MUST
2.2.1-G5 driver MUST
2.2.1-G6 driver MUST
2.2.1-G7 driver MUST
2.2.1-G8 driver MUST
2.2.2-D1 device MUST
2.2.2-D2 device MUST
2.2.2-D3 device MUST
2.2.2-D4 device SHOULD
`,
  ),
  area(
    "2.4",
    "Device reset",
    `
2.4.1-D1 device MUST
2.4.1-D2 device MUST
2.4.2-G1 driver SHOULD
`,
  ),
  area(
    "2.5",
    "Configuration space",
    `
2.5.1-G1 driver MUST
2.5.1-G2 driver MUST
2.5.1-G3 driver MUST
2.5.1-G4 driver SHOULD
2.5.2-D1 device MUST
`,
  ),
  area(
    "2.6",
    "Virtqueues, queue reset",
    `
2.6.1.1.1-D1 device MUST
2.6.1.1.1-D2 device MUST
2.6.1.1.2-G1 driver MUST
2.6.1.1.2-G2 driver MAY
2.6.1.2.1-D1 device MUST
2.6.1.2.2-G1 driver MUST
`,
  ),
  area(
    "2.7",
    "Split virtqueues",
    `
2.7.1-G1 driver MUST
2.7.4.1-D1 device MUST
2.7.4.1-D2 device MAY
2.7.4.2-G1 driver MUST
2.7.4.2-G2 driver SHOULD
2.7.5.1-D1 device MUST
2.7.5.1-D2 device MUST
2.7.5.2-G1 driver MUST
2.7.5.2-G2 driver MUST
2.7.5.3.1-G1 driver MUST
2.7.5.3.1-G2 driver MUST
2.7.5.3.1-G3 driver MUST
2.7.5.3.1-G4 driver MUST
2.7.5.3.1-G5 driver MUST
2.7.5.3.2-D1 device MUST
2.7.5.3.2-D2 device MUST
2.7.6.1-G1 driver MUST
2.7.7.1-G1 driver MUST
2.7.7.1-G2 driver MAY
2.7.7.1-G3 driver MUST
2.7.7.1-G4 driver MAY
2.7.7.1-G5 driver MUST
2.7.7.2-D1 device MUST
2.7.7.2-D2 device SHOULD
2.7.7.2-D3 device MUST
2.7.7.2-D4 device MUST
2.7.7.2-D5 device MUST
2.7.7.2-D6 device SHOULD
2.7.8.2-D1 device MUST
2.7.8.2-D2 device MUST
2.7.8.2-D3 device MAY
2.7.8.3-G1 driver MUST
2.7.10.1-G1 driver MUST
2.7.10.1-G2 driver MUST
2.7.10.1-G3 driver SHOULD
2.7.10.1-G4 driver MUST
2.7.10.1-G5 driver MUST
2.7.10.1-G6 driver MUST
2.7.10.1-G7 driver SHOULD
2.7.10.2-D1 device MUST
2.7.10.2-D2 device MAY
2.7.10.2-D3 device MUST
2.7.10.2-D4 device MAY
2.7.10.2-D5 device MUST
2.7.13.3.1-G1 driver MUST
2.7.13.4.1-G1 driver MUST
`,
  ),
  area(
    "2.8",
    "Packed virtqueues",
    `
2.8.11-G1 driver MUST
2.8.12-D1 device MUST
2.8.12-D2 device MUST
2.8.12-D3 device MAY
2.8.15-D1 device MUST
2.8.15-D2 device MUST
2.8.15-D3 device MUST
2.8.16-G1 driver MUST
2.8.16-G2 driver MUST
2.8.16-G3 driver MUST
2.8.16-G4 driver MAY
2.8.17-G1 driver MUST
2.8.17-G2 driver MUST
2.8.17-G3 driver MUST
2.8.17-G4 driver MUST
2.8.17-G5 driver MUST
2.8.17-G6 driver MUST
2.8.18-D1 device MUST
2.8.18-D2 device MAY
2.8.19-G1 driver MUST
2.8.19-G2 driver MUST
2.8.19-G3 driver MUST
2.8.19-G4 driver MUST
2.8.21.1.1-G1 driver MUST
2.8.21.3.1-G1 driver MUST
`,
  ),
  area(
    "2.10",
    "Shared memory",
    `
2.10.2-D1 device MUST
`,
  ),
  area(
    "3",
    "Initialisation, operation, suspend",
    `
3.1.1-G1 driver MUST
3.1.1-G2 driver MUST
3.1.1-G3 driver MUST
3.1.1-G4 driver MUST
3.1.1-G5 driver MUST
3.1.1-G6 driver MUST
3.1.1-G7 driver MUST
3.1.1-G8 driver MUST
3.1.1-G9 driver MUST
3.1.1-G10 driver MUST
3.1.1-G11 driver SHOULD
3.1.1-G12 driver MUST
3.1.1-G13 driver MUST
3.3.1-G1 driver MUST
3.3.1-G2 driver MUST
3.4.1-G1 driver SHOULD
3.4.1-G2 driver MUST
3.4.1-G3 driver MUST
3.4.1-G4 driver MUST
3.4.1-G5 driver MUST
3.4.1-G6 driver MUST
3.4.2-D1 device MUST
3.4.2-D2 device SHOULD
3.4.2-D3 device MUST
3.4.2-D4 device MUST
3.4.2-D5 device MUST
3.4.2-D6 device MUST
3.4.2-D7 device MUST
3.4.2-D8 device SHOULD
3.4.2-D9 device SHOULD
3.4.2-D10 device SHOULD
`,
  ),
  area(
    "4.1",
    "PCI",
    `
4.1.1-D1 device MUST
4.1.2.1-D1 device MUST
4.1.2.1-D2 device MUST
4.1.2.1-D3 device MAY
4.1.2.1-D4 device SHOULD
4.1.2.1-D5 device SHOULD
4.1.2.1-D6 device SHOULD
4.1.2.2-G1 driver MUST
4.1.2.2-G2 driver MUST
4.1.2.2-G3 driver MUST
4.1.2.2-G4 driver MAY
4.1.3.1-G1 driver MUST
4.1.3.1-G2 driver MAY
4.1.3.2-D1 device MUST
4.1.4.1-G1 driver MUST
4.1.4.1-G2 driver SHOULD
4.1.4.1-G3 driver MUST
4.1.4.1-G4 driver MUST
4.1.4.1-G5 driver SHOULD
4.1.4.1-G6 driver MUST
4.1.4.1-G7 driver MUST
4.1.4.2-D1 device MUST
4.1.4.2-D2 device MAY
4.1.4.2-D3 device SHOULD
4.1.4.3.1-D1 device MUST
4.1.4.3.1-D2 device MUST
4.1.4.3.1-D3 device MUST
4.1.4.3.1-D4 device MUST
4.1.4.3.1-D5 device MAY
4.1.4.3.1-D6 device MUST
4.1.4.3.1-D7 device MUST
4.1.4.3.1-D8 device MUST
4.1.4.3.1-D9 device MUST
4.1.4.3.1-D10 device MUST
4.1.4.3.1-D11 device MUST
4.1.4.3.1-D12 device MUST
4.1.4.3.1-D13 device MUST
4.1.4.3.1-D14 device MUST
4.1.4.3.1-D15 device MUST
4.1.4.3.1-D16 device MUST
4.1.4.3.2-G1 driver MUST
4.1.4.3.2-G2 driver MUST
4.1.4.3.2-G3 driver MUST
4.1.4.3.2-G4 driver MUST
4.1.4.3.2-G5 driver MUST
4.1.4.3.2-G6 driver MUST
4.1.4.3.2-G7 driver MUST
4.1.4.3.2-G8 driver MAY
4.1.4.3.2-G9 driver MAY
4.1.4.3.2-G10 driver MUST
4.1.4.3.2-G11 driver MAY
4.1.4.4.1-D1 device MUST
4.1.4.4.1-D2 device MUST
4.1.4.4.1-D3 device MUST
4.1.4.4.1-D4 device MUST
4.1.4.4.1-D5 device MUST
4.1.4.4.1-D6 device MUST
4.1.4.4.1-D7 device MUST
4.1.4.4.1-D8 device MUST
4.1.4.4.1-D9 device MUST
4.1.4.5.1-D1 device MUST
4.1.4.5.1-D2 device MUST
4.1.4.5.1-D3 device MUST
4.1.4.5.1-D4 device MUST
4.1.4.5.1-D5 device MUST
4.1.4.5.2-G1 driver SHOULD
4.1.4.6.1-D1 device MUST
4.1.4.7.1-D1 device MUST
4.1.4.7.1-D2 device MUST
4.1.4.8.1-D1 device MUST
4.1.4.8.1-D2 device MUST
4.1.4.8.1-D3 device MUST
4.1.4.8.2-G1 driver SHOULD
4.1.4.8.2-G2 driver MUST
4.1.4.9.1-D1 device MUST
4.1.4.9.1-D2 device MUST
4.1.4.9.1-D3 device MUST
4.1.4.9.2-G1 driver MUST
4.1.4.9.2-G2 driver MUST
4.1.4.11.0.1-D1 device SHOULD
4.1.4.11.0.1-D2 device SHOULD
4.1.5.1.2.1-D1 device SHOULD
4.1.5.1.2.1-D2 device MUST
4.1.5.1.2.1-D3 device SHOULD
4.1.5.1.2.1-D4 device MUST
4.1.5.1.2.1-D5 device MUST
4.1.5.1.2.1-D6 device MUST
4.1.5.1.2.1-D7 device MUST
4.1.5.1.2.1-D8 device SHOULD
4.1.5.1.2.1-D9 device MUST
4.1.5.1.2.2-G1 driver MUST
4.1.5.1.2.2-G2 driver MAY
4.1.5.1.2.2-G3 driver MAY
4.1.5.1.2.2-G4 driver MUST
4.1.5.1.2.2-G5 driver MUST
4.1.5.1.2.2-G6 driver MAY
4.1.5.2.1-G1 driver MUST
4.1.5.2.1-G2 driver MUST
4.1.5.2.1-G3 driver MUST
4.1.5.2.1-G4 driver MUST
4.1.5.2.1-G5 driver MUST
4.1.5.2.1-G6 driver MUST
4.1.5.3.1-D1 device MUST
4.1.5.4.1-D1 device MUST
4.1.5.4.2-G1 driver MUST
`,
  ),
  area(
    "4.2",
    "MMIO",
    `
4.2.2.1-D1 device MUST
4.2.2.1-D2 device MUST
4.2.2.1-D3 device MUST
4.2.2.1-D4 device MUST
4.2.2.1-D5 device MUST
4.2.2.1-D6 device MUST
4.2.2.1-D7 device MUST
4.2.2.1-D8 device MUST
4.2.2.1-D9 device MUST
4.2.2.1-D10 device MUST
4.2.2.1-D11 device MUST
4.2.2.1-D12 device MUST
4.2.2.2-G1 driver MUST
4.2.2.2-G2 driver MUST
4.2.2.2-G3 driver MUST
4.2.2.2-G4 driver MUST
4.2.2.2-G5 driver MUST
4.2.2.2-G6 driver MUST
4.2.2.2-G7 driver MUST
4.2.2.2-G8 driver MUST
4.2.2.2-G9 driver MUST
4.2.2.2-G10 driver MUST
4.2.2.2-G11 driver MUST
4.2.2.2-G12 driver MUST
4.2.2.2-G13 driver MUST
4.2.2.2-G14 driver MUST
4.2.2.2-G15 driver MAY
4.2.2.2-G16 driver MAY
4.2.3.1.1-G1 driver MUST
4.2.3.1.1-G2 driver MUST
4.2.3.1.1-G3 driver MUST
4.2.3.1.1-G4 driver MUST
4.2.3.4.1-G1 driver MUST
4.2.3.4.1-G2 driver SHOULD
4.2.3.4.1-G3 driver MUST
`,
  ),
  area(
    "5.1",
    "Network device",
    `
5.1.4.1-D1 device MUST
5.1.4.1-D2 device MUST
5.1.4.1-D3 device SHOULD
5.1.4.1-D4 device MUST
5.1.4.1-D5 device MUST
5.1.4.1-D6 device MUST
5.1.4.1-D7 device MUST
5.1.4.1-D8 device MUST
5.1.4.1-D9 device MAY
5.1.4.1-D10 device MUST
5.1.4.1-D11 device MUST
5.1.4.1-D12 device SHOULD
5.1.4.1-D13 device SHOULD
5.1.4.1-D14 device SHOULD
5.1.4.2-G1 driver MUST
5.1.4.2-G2 driver SHOULD
5.1.4.2-G3 driver MUST
5.1.4.2-G4 driver SHOULD
5.1.4.2-G5 driver SHOULD
5.1.4.2-G6 driver SHOULD
5.1.4.2-G7 driver MUST
5.1.4.2-G8 driver MUST
5.1.4.2-G9 driver SHOULD
5.1.4.2-G10 driver MUST
5.1.4.2-G11 driver SHOULD
5.1.4.2-G12 driver SHOULD
5.1.4.2-G13 driver SHOULD
5.1.9.2.1-G1 driver MUST
5.1.9.2.1-G2 driver MUST
5.1.9.2.1-G3 driver MUST
5.1.9.2.1-G4 driver MAY
5.1.9.2.1-G5 driver MUST
5.1.9.2.1-G6 driver MUST
5.1.9.2.1-G7 driver MUST
5.1.9.2.1-G8 driver MUST
5.1.9.2.1-G9 driver MUST
5.1.9.2.1-G10 driver MUST
5.1.9.2.1-G11 driver MUST
5.1.9.2.1-G12 driver MUST
5.1.9.2.1-G13 driver MUST
5.1.9.2.1-G14 driver MUST
5.1.9.2.1-G15 driver MUST
5.1.9.2.1-G16 driver MUST
5.1.9.2.1-G17 driver MAY
5.1.9.2.1-G18 driver MUST
5.1.9.2.1-G19 driver MUST
5.1.9.2.1-G20 driver MUST
5.1.9.2.1-G21 driver MUST
5.1.9.2.1-G22 driver MUST
5.1.9.2.1-G23 driver MUST
5.1.9.2.1-G24 driver SHOULD
5.1.9.2.1-G25 driver MAY
5.1.9.2.1-G26 driver MUST
5.1.9.2.1-G27 driver MUST
5.1.9.2.1-G28 driver MUST
5.1.9.2.1-G29 driver MUST
5.1.9.2.1-G30 driver MUST
5.1.9.2.1-G31 driver MUST
5.1.9.2.1-G32 driver SHOULD
5.1.9.2.1-G33 driver MUST
5.1.9.2.1-G34 driver MUST
5.1.9.2.1-G35 driver MUST
5.1.9.2.1-G36 driver MUST
5.1.9.2.2-D1 device MUST
5.1.9.2.2-D2 device MUST
5.1.9.2.2-D3 device MAY
5.1.9.2.2-D4 device MUST
5.1.9.2.2-D5 device MAY
5.1.9.2.2-D6 device MAY
5.1.9.2.2-D7 device MUST
5.1.9.2.2-D8 device MUST
5.1.9.2.2-D9 device MUST
5.1.9.2.2-D10 device MUST
5.1.9.2.2-D11 device MUST
5.1.9.2.2-D12 device MUST
5.1.9.2.2-D13 device MUST
5.1.9.3.1-G1 driver SHOULD
5.1.9.3.1-G2 driver SHOULD
5.1.9.3.1-G3 driver MUST
5.1.9.3.1-G4 driver MUST
5.1.9.3.1-G5 driver SHOULD
5.1.9.3.2-D1 device MUST
5.1.9.3.2-D2 device MUST
5.1.9.4.1-D1 device MUST
5.1.9.4.1-D2 device MUST
5.1.9.4.1-D3 device MUST
5.1.9.4.1-D4 device MUST
5.1.9.4.1-D5 device MUST
5.1.9.4.1-D6 device MUST
5.1.9.4.1-D7 device MUST
5.1.9.4.1-D8 device MUST
5.1.9.4.1-D9 device MUST
5.1.9.4.1-D10 device MUST
5.1.9.4.1-D11 device MUST
5.1.9.4.1-D12 device MUST
5.1.9.4.1-D13 device MAY
5.1.9.4.1-D14 device MUST
5.1.9.4.1-D15 device MAY
5.1.9.4.1-D16 device MUST
5.1.9.4.1-D17 device MUST
5.1.9.4.1-D18 device MUST
5.1.9.4.1-D19 device MUST
5.1.9.4.1-D20 device MUST
5.1.9.4.1-D21 device MUST
5.1.9.4.1-D22 device MUST
5.1.9.4.1-D23 device MUST
5.1.9.4.1-D24 device MUST
5.1.9.4.1-D25 device SHOULD
5.1.9.4.1-D26 device MUST
5.1.9.4.1-D27 device MUST
5.1.9.4.1-D28 device MUST
5.1.9.4.1-D29 device MUST
5.1.9.4.1-D30 device MUST
5.1.9.4.1-D31 device MUST
5.1.9.4.1-D32 device MUST
5.1.9.4.1-D33 device MUST
5.1.9.4.1-D34 device MUST
5.1.9.4.1-D35 device MUST
5.1.9.4.1-D36 device MUST
5.1.9.4.2-G1 driver MUST
5.1.9.4.2-G2 driver MAY
5.1.9.4.2-G3 driver MUST
5.1.9.4.2-G4 driver MUST
5.1.9.4.2-G5 driver MAY
5.1.9.4.2-G6 driver MUST
5.1.9.4.2-G7 driver MUST
5.1.9.4.2-G8 driver MUST
5.1.9.4.2-G9 driver MUST
5.1.9.4.2-G10 driver MUST
5.1.9.4.2-G11 driver MUST
5.1.9.4.4.4-D1 device MUST
5.1.9.4.4.4-D2 device SHOULD
5.1.9.4.4.4-D3 device MUST
5.1.9.4.4.5-G1 driver MUST
5.1.9.4.4.5-G2 driver MUST
5.1.9.4.4.5-G3 driver MUST
5.1.9.5.1.1-D1 device MUST
5.1.9.5.1.1-D2 device SHOULD
5.1.9.5.1.1-D3 device SHOULD
5.1.9.5.1.1-D4 device MUST
5.1.9.5.1.1-D5 device SHOULD
5.1.9.5.1.1-D6 device MUST
5.1.9.5.1.1-D7 device SHOULD
5.1.9.5.1.1-D8 device MUST
5.1.9.5.1.1-D9 device SHOULD
5.1.9.5.1.1-D10 device SHOULD
5.1.9.5.1.1-D11 device SHOULD
5.1.9.5.1.1-D12 device MUST
5.1.9.5.1.1-D13 device SHOULD
5.1.9.5.1.1-D14 device SHOULD
5.1.9.5.1.1-D15 device MUST
5.1.9.5.1.1-D16 device SHOULD
5.1.9.5.1.1-D17 device SHOULD
5.1.9.5.1.2-G1 driver MUST
5.1.9.5.1.2-G2 driver MUST
5.1.9.5.2.1-D1 device MUST
5.1.9.5.2.1-D2 device MUST
5.1.9.5.2.1-D3 device MUST
5.1.9.5.2.1-D4 device SHOULD
5.1.9.5.2.2-G1 driver MUST
5.1.9.5.2.2-G2 driver SHOULD
5.1.9.5.2.2-G3 driver MUST
5.1.9.5.2.2-G4 driver MAY
5.1.9.5.3.1-D1 device MUST
5.1.9.5.3.1-D2 device MUST
5.1.9.5.4.1-G1 driver SHOULD
5.1.9.5.4.1-G2 driver MUST
5.1.9.5.4.2-D1 device MUST
5.1.9.5.6.1-G1 driver MUST
5.1.9.5.6.1-G2 driver MUST
5.1.9.5.6.1-G3 driver MUST
5.1.9.5.6.1-G4 driver MUST
5.1.9.5.6.2-D1 device MUST
5.1.9.5.6.2-D2 device MUST
5.1.9.5.6.2-D3 device SHOULD
5.1.9.5.6.2-D4 device MUST
5.1.9.5.7.2-G1 driver MUST
5.1.9.5.7.2-G2 driver MUST
5.1.9.5.7.2-G3 driver MUST
5.1.9.5.7.2-G4 driver MUST
5.1.9.5.7.2-G5 driver MUST
5.1.9.5.7.3-D1 device MUST
5.1.9.5.7.3-D2 device MUST
5.1.9.5.7.3-D3 device MUST
5.1.9.5.7.3-D4 device MUST
5.1.9.5.8.3-D1 device MUST
5.1.9.5.8.3-D2 device MUST
5.1.9.5.8.4-G1 driver MUST
5.1.9.5.8.4-G2 driver MUST
5.1.9.5.8.4-G3 driver MUST
5.1.9.5.9.2-G1 driver MUST
5.1.9.5.10.5-G1 driver MUST
5.1.9.5.10.5-G2 driver MUST
5.1.9.5.10.5-G3 driver MUST
5.1.9.5.10.5-G4 driver MUST
5.1.9.5.10.6-D1 device MUST
5.1.9.5.10.6-D2 device SHOULD
5.1.9.5.10.6-D3 device MUST
5.1.9.5.10.6-D4 device MUST
5.1.9.5.10.6-D5 device MUST
5.1.9.5.10.6-D6 device MUST
5.1.9.5.10.6-D7 device MAY
5.1.9.5.10.6-D8 device SHOULD
5.1.9.5.10.6-D9 device MUST
5.1.9.5.11.12-D1 device MUST
5.1.9.5.11.12-D2 device MUST
5.1.9.5.11.12-D3 device MUST
5.1.9.5.11.12-D4 device MUST
5.1.9.5.11.12-D5 device MUST
5.1.9.5.11.12-D6 device MUST
5.1.9.5.11.12-D7 device MUST
5.1.9.5.11.13-G1 driver MUST
5.1.9.5.11.13-G2 driver MUST
5.1.9.5.11.13-G3 driver MUST
5.1.9.6.4-D1 device MUST
5.1.9.6.4-D2 device MUST
5.1.9.6.4-D3 device SHOULD
5.1.9.6.4-D4 device SHOULD
5.1.9.6.4-D5 device SHOULD
5.1.9.6.4-D6 device SHOULD
5.1.9.6.4-D7 device SHOULD
5.1.9.6.4-D8 device SHOULD
5.1.9.6.4-D9 device SHOULD
5.1.9.6.4-D10 device SHOULD
5.1.9.6.4-D11 device SHOULD
5.1.9.6.4-D12 device SHOULD
5.1.9.6.4-D13 device SHOULD
5.1.9.6.4-D14 device MUST
5.1.9.6.4-D15 device MUST
5.1.9.6.4-D16 device MUST
5.1.9.6.4-D17 device MUST
5.1.9.6.4-D18 device MUST
5.1.9.6.4-D19 device MUST
5.1.9.6.4-D20 device MUST
5.1.9.6.4-D21 device MAY
5.1.9.6.4-D22 device MUST
5.1.9.6.4-D23 device MUST
5.1.9.6.4-D24 device MUST
5.1.9.6.4-D25 device MUST
5.1.9.6.4-D26 device MUST
5.1.9.6.4-D27 device MUST
5.1.9.6.5-G1 driver MUST
5.1.9.6.5-G2 driver SHOULD
5.1.9.6.5-G3 driver SHOULD
5.1.9.6.5-G4 driver SHOULD
5.1.9.6.5-G5 driver SHOULD
5.1.9.6.5-G6 driver SHOULD
5.1.9.6.5-G7 driver SHOULD
5.1.9.6.5-G8 driver MUST
5.1.9.6.5-G9 driver MUST
5.1.9.6.5-G10 driver MUST
5.1.9.6.5-G11 driver MUST
5.1.9.6.5-G12 driver MUST
5.1.9.6.5-G13 driver MUST
5.1.9.6.5-G14 driver MUST
5.1.9.6.5-G15 driver SHOULD
5.1.9.7.4-D1 device MUST
5.1.9.7.4-D2 device MUST
5.1.9.7.4-D3 device MUST
5.1.9.7.4-D4 device MUST
5.1.9.7.4-D5 device MUST
5.1.9.7.4-D6 device MUST
5.1.9.7.4-D7 device MUST
5.1.9.7.4-D8 device MUST
5.1.9.7.4-D9 device SHOULD
5.1.9.7.4-D10 device MUST
5.1.9.7.4-D11 device MAY
5.1.9.7.4-D12 device MUST
5.1.9.7.5-G1 driver MUST
5.1.9.7.5-G2 driver MUST
5.1.9.7.5-G3 driver MUST
5.1.9.7.5-G4 driver MUST
5.1.9.7.5-G5 driver MUST
5.1.9.7.5-G6 driver SHOULD
5.1.9.7.5-G7 driver MUST
`,
  ),
  area(
    "5.2",
    "Block device",
    `
5.2.5.1-G1 driver SHOULD
5.2.5.1-G2 driver MAY
5.2.5.1-G3 driver SHOULD
5.2.5.1-G4 driver MUST
5.2.5.1-G5 driver MUST
5.2.5.1-G6 driver MUST
5.2.5.1-G7 driver MAY
5.2.5.1-G8 driver MUST
5.2.5.1-G9 driver MAY
5.2.5.1-G10 driver SHOULD
5.2.5.2-D1 device MUST
5.2.5.2-D2 device MUST
5.2.5.2-D3 device MUST
5.2.5.2-D4 device SHOULD
5.2.5.2-D5 device MUST
5.2.5.2-D6 device SHOULD
5.2.5.2-D7 device MUST
5.2.5.2-D8 device MUST
5.2.5.2-D9 device MUST
5.2.5.2-D10 device MUST
5.2.5.2-D11 device MUST
5.2.5.2-D12 device MAY
5.2.5.2-D13 device MUST
5.2.5.2-D14 device MUST
5.2.5.2-D15 device MUST
5.2.5.2-D16 device MUST
5.2.5.2-D17 device MAY
5.2.5.2-D18 device MUST
5.2.5.2-D19 device MUST
5.2.6.1-G1 driver SHOULD
5.2.6.1-G2 driver MUST
5.2.6.1-G3 driver SHOULD
5.2.6.1-G4 driver MUST
5.2.6.1-G5 driver SHOULD
5.2.6.1-G6 driver MUST
5.2.6.1-G7 driver MUST
5.2.6.1-G8 driver MUST
5.2.6.1-G9 driver MUST
5.2.6.1-G10 driver MUST
5.2.6.1-G11 driver MUST
5.2.6.1-G12 driver MAY
5.2.6.1-G13 driver MUST
5.2.6.1-G14 driver MUST
5.2.6.1-G15 driver MUST
5.2.6.1-G16 driver MUST
5.2.6.1-G17 driver MUST
5.2.6.1-G18 driver MUST
5.2.6.1-G19 driver MAY
5.2.6.1-G20 driver MUST
5.2.6.1-G21 driver MUST
5.2.6.1-G22 driver MUST
5.2.6.1-G23 driver MUST
5.2.6.1-G24 driver MAY
5.2.6.1-G25 driver MUST
5.2.6.1-G26 driver MUST
5.2.6.1-G27 driver MUST
5.2.6.2-D1 device MAY
5.2.6.2-D2 device SHOULD
5.2.6.2-D3 device MUST
5.2.6.2-D4 device MUST
5.2.6.2-D5 device MUST
5.2.6.2-D6 device MAY
5.2.6.2-D7 device MAY
5.2.6.2-D8 device MUST
5.2.6.2-D9 device SHOULD
5.2.6.2-D10 device SHOULD
5.2.6.2-D11 device MUST
5.2.6.2-D12 device MAY
5.2.6.2-D13 device SHOULD
5.2.6.2-D14 device MUST
5.2.6.2-D15 device MUST
5.2.6.2-D16 device MUST
5.2.6.2-D17 device MUST
5.2.6.2-D18 device MUST
5.2.6.2-D19 device MUST
5.2.6.2-D20 device MUST
5.2.6.2-D21 device MUST
5.2.6.2-D22 device MUST
5.2.6.2-D23 device MUST
5.2.6.2-D24 device MUST
5.2.6.2-D25 device MUST
5.2.6.2-D26 device MUST
5.2.6.2-D27 device MUST
5.2.6.2-D28 device MUST
5.2.6.2-D29 device MUST
5.2.6.2-D30 device MUST
5.2.6.2-D31 device MUST
5.2.6.2-D32 device MAY
5.2.6.2-D33 device MUST
5.2.6.2-D34 device MUST
5.2.6.2-D35 device MUST
5.2.6.2-D36 device MUST
5.2.6.2-D37 device MUST
5.2.6.2-D38 device MUST
5.2.6.2-D39 device MUST
5.2.6.2-D40 device MUST
`,
  ),
  area(
    "5.3",
    "Console device",
    `
5.3.5.1-D1 device MUST
5.3.5.1-D2 device SHOULD
5.3.6.1-G1 driver MUST
5.3.6.1-G2 driver MUST
5.3.6.2.1-D1 device MUST
5.3.6.2.1-D2 device MUST
5.3.6.2.2-G1 driver MUST
5.3.6.2.2-G2 driver MUST
`,
  ),
  area(
    "6",
    "Reserved feature bits",
    `
6.1-G1 driver MUST
6.1-G2 driver MAY
6.1-G3 driver MUST
6.1-G4 driver MUST
6.1-G5 driver SHOULD
6.1-G6 driver SHOULD
6.1-G7 driver MUST
6.1-G8 driver MAY
6.1-G9 driver MUST
6.1-G10 driver MUST
6.1-G11 driver MAY
6.1-G12 driver SHOULD
6.2-D1 device MUST
6.2-D2 device MAY
6.2-D3 device SHOULD
6.2-D4 device MAY
6.2-D5 device MUST
6.2-D6 device MAY
6.2-D7 device MAY
6.2-D8 device SHOULD
6.2-D9 device MUST
`,
  ),
];
