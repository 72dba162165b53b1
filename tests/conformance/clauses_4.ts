import { type Area, area } from "./clause.ts";

/** Chapter 4: the transports. */
export const CHAPTER_4: readonly Area[] = [
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
];
