import { type Area, area } from "./clause.ts";

/** Section 5.2: block devices. */
export const SECTION_5_2: readonly Area[] = [
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
];

/** Section 5.3: console devices. */
export const SECTION_5_3: readonly Area[] = [
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
];
