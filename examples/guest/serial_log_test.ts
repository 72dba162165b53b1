/** What of the serial line is the shell's. */
import { assertEquals } from "@std/assert";
import { betweenMarkers } from "./serial_log.ts";

Deno.test("a shell's output is what stands between the marks, however it comes in parts", () => {
  const text = "noise m begin\r\nfirst m 1\nm\nm x\n\nlast\nm 0\nnoise";
  for (let size = 1; size <= text.length; size++) {
    let seen = "";
    const tap = betweenMarkers("m begin", "m 0", (part) => seen += part);
    for (let at = 0; at < text.length; at += size) tap(text.slice(at, at + size));
    assertEquals(seen, "first m 1\nm\nm x\n\nlast\n", `in parts of ${size}`);
  }
});

Deno.test("a shell's output is passed on at once, but for the beginning of a line that may be the mark", () => {
  const parts: string[] = [];
  const tap = betweenMarkers("m begin", "mark 0", (part) => parts.push(part));
  for (const text of ["m begin\n", "one\r\n", "ma", "p", "m", "\n", "mar", "k 1"]) tap(text);
  assertEquals(parts, ["one\r\n", "map", "m", "\n", "mark 1"]);
});
