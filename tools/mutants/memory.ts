import type { MutatedFile } from "./mutant.ts";

/** Guest memory: what keeps devices inside of it. */
export const MEMORY: readonly MutatedFile[] = [
  {
    file: "packages/memory/memory.ts",
    mutants: [
      {
        name: "memory-last-region-loosened",
        about: "a range that begins in the region found last may go on beyond its end",
        edits: [[
          "if (offset >= 0 && offset + length <= region.size) return region;",
          "if (offset >= 0 && offset < region.size) return region;",
        ]],
      },
      {
        name: "memory-search-loosened",
        about: "a range that begins in a region that was searched for may go on beyond its end",
        edits: [[
          "if (!(offset >= 0 && offset + length <= region.size)) return null;",
          "if (!(offset >= 0 && offset < region.size)) return null;",
        ]],
      },
      {
        name: "memory-end-off-by-one",
        about: "a range may end one byte behind its region",
        edits: [[
          "if (offset >= 0 && offset + length <= region.size) return region;",
          "if (offset >= 0 && offset + length <= region.size + 1) return region;",
        ]],
      },
      {
        name: "memory-overlap-accepted",
        about: "two regions may overlap",
        edits: [["if (before.base + before.size > region.base) {", "if (false) {"]],
      },
      {
        name: "memory-partial-copy",
        about: "a copy that runs out of memory has written its first part",
        edits: [[
          `    this.#check(address, from.length);
`,
          "",
        ]],
      },
      {
        name: "memory-refresh-ignored",
        about: "views stay on the old buffer when the memory has grown",
        edits: [["for (const region of this.regions) region.refresh();", ""]],
      },
    ],
  },
  {
    file: "packages/memory/copy.ts",
    mutants: [
      {
        name: "copy-start-ignored",
        about: "a view of a part of a memory is copied to as if it began where the memory does",
        edits: [["this.start = bytes.byteOffset;", "this.start = 0;"]],
      },
    ],
  },
  {
    file: "packages/memory/region.ts",
    mutants: [
      {
        name: "copy-beyond-region",
        about: "a copy may go on behind the end of its region",
        edits: [["length <= size - offset && ", ""]],
      },
      {
        name: "copy-beyond-view",
        about: "a copy may go on behind the end of the view on the other side",
        edits: [[" && length <= room - at", ""]],
      },
      {
        name: "copy-region-offset-ignored",
        about: "a copy takes the region to begin where its memory does",
        edits: [["peer.out((this.#byteOffset + offset) | 0,", "peer.out(offset | 0,"]],
      },
    ],
  },
];
