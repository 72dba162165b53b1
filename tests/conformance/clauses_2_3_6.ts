import { type Area, area } from "./clause.ts";

/** Chapter 2: what all devices have in common. */
export const CHAPTER_2: readonly Area[] = [
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
];

/** Chapter 3: how devices are initialised and run. */
export const CHAPTER_3: readonly Area[] = [
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
];

/** Chapter 6: reserved feature bits. */
export const CHAPTER_6: readonly Area[] = [
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
