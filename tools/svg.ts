/** Pictures of measurements, as SVG: bars and curves, each value with its spread. No dependency, the same input gives the same bytes. */

/** A value, and the range in which half of the samples or more lie. */
export interface Measured {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** Horizontal bars. */
export interface BarChart {
  readonly kind: "bars";
  readonly title: string;
  /** A line across the bars, such as 1 where bars are ratios. */
  readonly reference?: { readonly value: number; readonly label: string };
  readonly bars: readonly {
    readonly label: string;
    readonly value: Measured;
    /** What stands behind the bar; the value unless given. */
    readonly text?: string;
    /** Which colour, from 0 on; 0 unless given. */
    readonly colour?: number;
  }[];
}

/** Curves over an axis on which each step doubles. */
export interface LineChart {
  readonly kind: "lines";
  readonly title: string;
  /** What the horizontal axis is. */
  readonly axis: string;
  readonly lines: readonly {
    readonly label: string;
    /** Which colour, from 0 on; its place among the lines unless given. */
    readonly colour?: number;
    readonly points: readonly { readonly x: number; readonly y: Measured }[];
  }[];
}

/** Charts, one below the other. */
export interface Picture {
  readonly title: string;
  readonly charts: readonly (BarChart | LineChart)[];
  /** Method and units, below all charts; one line each. */
  readonly notes: readonly string[];
}

const WIDTH = 840;
const MARGIN = 24;
const LABELS = 290;
const TEXTS = 190;
const BAR = 22;
const CURVES = 220;
const COLOURS = ["#3b6fb6", "#c2703d", "#4f9153", "#8c5fa8", "#b0495f", "#6b7785"];

const STYLE = `
  svg { font: 13px system-ui, sans-serif; }
  .paper { fill: #ffffff; } text { fill: #1f2328; } .quiet { fill: #59636e; font-size: 12px; }
  .title { font-size: 17px; font-weight: 600; } .head { font-weight: 600; }
  .spread, .axis, .curve { fill: none; } .spread { stroke: #1f2328; } .axis { stroke: #d1d9e0; }
  .reference { stroke: #59636e; stroke-dasharray: 4 3; } .curve { stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; } text { fill: #f0f6fc; } .quiet { fill: #9198a1; }
    .spread { stroke: #f0f6fc; } .axis { stroke: #3d444d; } .reference { stroke: #9198a1; }
  }`;

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** A coordinate: two decimals tell pixels apart well enough. */
function at(value: number): string {
  return String(Math.round(value * 100) / 100);
}

type Anchor = "start" | "middle" | "end";

function text(x: number, y: number, content: string, style = "", anchor: Anchor = "start"): string {
  const attributes = (style === "" ? "" : ` class="${style}"`) +
    (anchor === "start" ? "" : ` text-anchor="${anchor}"`);
  return `<text x="${at(x)}" y="${at(y)}"${attributes}>${escape(content)}</text>`;
}

function path(style: string, d: string, stroke?: string): string {
  const colour = stroke === undefined ? "" : ` stroke="${stroke}"`;
  return `<path class="${style}"${colour} d="${d}"/>`;
}

function colourOf(index: number): string {
  return COLOURS[index % COLOURS.length]!;
}

/** A number as people read it: three digits that count, and thousands apart. */
export function readable(value: number): string {
  const digits = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en-US", {
    minimumFractionDigits: value >= 1000 ? 0 : Math.min(digits, 2),
    maximumFractionDigits: Math.min(digits, 2),
  });
}

/** A number at an axis. */
function tick(value: number): string {
  return value.toLocaleString("en-US", { maximumSignificantDigits: 6 });
}

/** The smallest of 1, 2, 5 times a power of ten that gives at most `steps` steps up to `top`. */
function stepFor(top: number, steps: number): number {
  const power = 10 ** Math.floor(Math.log10(top / steps));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => top / step <= steps)!;
}

/** Drawn, and how high it is. */
interface Drawn {
  readonly parts: string[];
  readonly height: number;
}

function checkValue(value: Measured, where: string): void {
  const { median, low, high } = value;
  if (![median, low, high].every((part) => Number.isFinite(part) && part >= 0)) {
    throw new RangeError(`A value of ${JSON.stringify(where)} is not a number from 0 on`);
  }
}

function drawBars(chart: BarChart, top: number): Drawn {
  const parts = [text(MARGIN, top + 14, chart.title, "head")];
  const left = MARGIN + LABELS;
  const width = WIDTH - MARGIN - TEXTS - left;
  let most = chart.reference?.value ?? 0;
  for (const { label, value } of chart.bars) {
    checkValue(value, label);
    most = Math.max(most, value.median, value.high);
  }
  const scale = most === 0 ? 0 : width / most;
  const first = top + 24;
  chart.bars.forEach(({ label, value, text: behind, colour }, i) => {
    const y = first + i * BAR;
    const middle = y + BAR / 2;
    parts.push(text(left - 8, middle + 4, label, "", "end"));
    parts.push(
      `<rect x="${at(left)}" y="${at(y + 4)}" width="${at(value.median * scale)}" ` +
        `height="${BAR - 8}" fill="${colourOf(colour ?? 0)}"/>`,
    );
    if (value.high > value.low) {
      const low = at(left + value.low * scale);
      const high = at(left + value.high * scale);
      const [up, down] = [at(middle - 4), at(middle + 4)];
      parts.push(
        path(
          "spread",
          `M${low} ${at(middle)}H${high}M${low} ${up}V${down}M${high} ${up}V${down}`,
        ),
      );
    }
    const end = left + Math.max(value.median, value.high) * scale;
    parts.push(text(end + 8, middle + 4, behind ?? readable(value.median), "quiet"));
  });
  const bottom = first + chart.bars.length * BAR;
  parts.push(path("axis", `M${left} ${first}V${bottom}`));
  let height = bottom - top + 14;
  if (chart.reference !== undefined) {
    const x = left + chart.reference.value * scale;
    parts.push(path("reference", `M${at(x)} ${first}V${bottom + 4}`));
    parts.push(text(x, bottom + 17, chart.reference.label, "quiet", "middle"));
    height += 12;
  }
  return { parts, height };
}

function drawLines(chart: LineChart, top: number): Drawn {
  const parts = [text(MARGIN, top + 14, chart.title, "head")];
  const left = MARGIN + 60;
  const right = WIDTH - MARGIN - TEXTS;
  const first = top + 28;
  const bottom = first + CURVES;
  const xs = new Set<number>();
  let most = 0;
  for (const { label, points } of chart.lines) {
    for (const { x, y } of points) {
      checkValue(y, label);
      if (!(x > 0)) throw new RangeError(`An axis that doubles has no place for ${x}`);
      xs.add(x);
      most = Math.max(most, y.median, y.high);
    }
  }
  const ticks = [...xs].sort((a, b) => a - b);
  const from = Math.log2(ticks[0] ?? 1);
  const octaves = Math.max(1, Math.log2(ticks.at(-1) ?? 2) - from);
  const place = (x: number): number => left + (Math.log2(x) - from) / octaves * (right - left);
  const scale = most === 0 ? 0 : CURVES / most;
  if (most > 0) {
    const step = stepFor(most, 5);
    for (let y = 0; y <= most; y += step) {
      const height = bottom - y * scale;
      parts.push(path("axis", `M${left} ${at(height)}H${right}`));
      parts.push(text(left - 8, height + 4, tick(y), "quiet", "end"));
    }
  }
  let last = -Infinity;
  for (const x of ticks) {
    // A label has to have room.
    if (place(x) - last < 44) continue;
    last = place(x);
    parts.push(text(last, bottom + 16, tick(x), "quiet", "middle"));
  }
  parts.push(text((left + right) / 2, bottom + 33, chart.axis, "quiet", "middle"));
  const ends: { y: number; label: string; stroke: string }[] = [];
  chart.lines.forEach(({ label, colour, points }, i) => {
    const stroke = colourOf(colour ?? i);
    const d = points.map(({ x, y }, n) =>
      `${n === 0 ? "M" : "L"}${at(place(x))} ${at(bottom - y.median * scale)}`
    ).join("");
    parts.push(path("curve", d, stroke));
    for (const { x, y } of points) {
      const [low, high] = [at(bottom - y.low * scale), at(bottom - y.high * scale)];
      parts.push(path("curve", `M${at(place(x))} ${low}V${high}`, stroke));
    }
    const end = points.at(-1);
    if (end !== undefined) ends.push({ y: bottom - end.y.median * scale, label, stroke });
  });
  // Labels behind the curves, moved apart where curves end together.
  ends.sort((a, b) => a.y - b.y);
  let free = first;
  for (const { y, label, stroke } of ends) {
    const line = Math.max(y, free);
    parts.push(path("curve", `M${at(right + 10)} ${at(line)}h12`, stroke));
    parts.push(text(right + 28, line + 4, label, "quiet"));
    free = line + 15;
  }
  return { parts, height: bottom + 44 - top };
}

/**
 * Draws a picture.
 *
 * @throws {RangeError} If a value is negative or not a number.
 */
export function drawPicture(picture: Picture): string {
  const parts = [text(MARGIN, MARGIN + 14, picture.title, "title")];
  let y = MARGIN + 34;
  for (const chart of picture.charts) {
    const drawn = chart.kind === "bars" ? drawBars(chart, y) : drawLines(chart, y);
    parts.push(...drawn.parts);
    y += drawn.height + 12;
  }
  for (const note of picture.notes) {
    parts.push(text(MARGIN, y + 10, note, "quiet"));
    y += 17;
  }
  const height = Math.ceil(y + MARGIN - 8);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" ` +
    `viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escape(picture.title)}">`,
    `<style>${STYLE}</style>`,
    `<rect class="paper" width="${WIDTH}" height="${height}"/>`,
    ...parts,
    "</svg>\n",
  ].join("\n");
}
