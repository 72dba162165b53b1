import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { drawPicture, type Picture, readable } from "../../tools/svg.ts";

const exact = (value: number) => ({ median: value, low: value, high: value });

const PICTURE: Picture = {
  title: 'a < b & "c"',
  charts: [
    {
      kind: "bars",
      title: "bars",
      reference: { value: 1, label: "one" },
      bars: [
        { label: "half", value: { median: 0.5, low: 0.25, high: 1 } },
        { label: "four", value: exact(4), text: "4 times", colour: 7 },
      ],
    },
    {
      kind: "lines",
      title: "lines",
      axis: "queues",
      lines: [
        { label: "flat", points: [1, 2, 64].map((x) => ({ x, y: exact(10) })) },
        { label: "also flat", points: [1, 64].map((x) => ({ x, y: exact(10) })) },
      ],
    },
  ],
  notes: ["a note"],
};

/** Every element that is opened is closed, in order. */
function checkTags(svg: string): void {
  const open: string[] = [];
  for (const [, close, name, self] of svg.matchAll(/<(\/?)([a-z]+)[^<>]*?(\/?)>/g)) {
    if (close === "/") assertEquals(open.pop(), name);
    else if (self !== "/") open.push(name!);
  }
  assertEquals(open, []);
}

Deno.test("svg: a picture is well formed, says all its labels, and stays the same", () => {
  const svg = drawPicture(PICTURE);
  checkTags(svg);
  for (const text of ["a &lt; b &amp; &quot;c&quot;", "half", "4 times", "one", "queues", "flat"]) {
    assertStringIncludes(svg, text);
  }
  assert(!/NaN|Infinity|undefined|a < b/.test(svg));
  assertEquals(drawPicture(PICTURE), svg);
});

Deno.test("svg: bars are as long as their values are large", () => {
  const widths = [...drawPicture(PICTURE).matchAll(/<rect x="[^"]*" y="[^"]*" width="([^"]*)"/g)]
    .map((match) => Number(match[1]));
  assertEquals(widths.length, 2);
  assert(Math.abs(widths[1]! / widths[0]! - 8) < 0.01);
});

Deno.test("svg: labels of curves that end together do not overlap", () => {
  const ys = [...drawPicture(PICTURE).matchAll(/y="([^"]*)"[^>]*>(?:also )?flat</g)]
    .map((match) => Number(match[1]));
  assertEquals(ys.length, 2);
  assert(Math.abs(ys[0]! - ys[1]!) >= 15);
});

Deno.test("svg: nothing to draw is drawn, what is no measurement is refused", () => {
  checkTags(drawPicture({ title: "empty", charts: [], notes: [] }));
  const bars = (value: number): Picture => ({
    title: "",
    charts: [{ kind: "bars", title: "", bars: [{ label: "bar", value: exact(value) }] }],
    notes: [],
  });
  assertMatch(drawPicture(bars(0)), /width="0"/);
  for (const value of [NaN, Infinity, -1]) {
    assertThrows(() => drawPicture(bars(value)), RangeError, "bar");
  }
});

Deno.test("svg: numbers have three digits that count", () => {
  assertEquals([0, 0.123, 1.5, 12.34, 123.4, 12345].map(readable), [
    "0",
    "0.12",
    "1.50",
    "12.3",
    "123",
    "12,345",
  ]);
});
