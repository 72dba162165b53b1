/** What README.md and ARCHITECTURE.md name is there: files, tasks, and names in the code. */
import { assert, assertEquals } from "@std/assert";
import { filesBelow } from "../tools/files.ts";

const root = new URL("..", import.meta.url).pathname;
const FOLDERS = ["packages", "examples", "tests", "bench", "tools", "docs"];

/** All files that are kept, by their paths from the root of the tree. */
async function allFiles(): Promise<string[]> {
  return (await Promise.all(FOLDERS.map((folder) => filesBelow(folder)))).flat();
}

/** What stands between backticks, but for blocks of code. */
function quoted(text: string): string[] {
  const prose = text.replace(/^```[\s\S]*?^```/gm, "");
  return [...prose.matchAll(/`([^`]+)`/g)].map(([, code]) => code!.replace(/\s+/g, " "));
}

for (const document of ["README.md", "ARCHITECTURE.md"]) {
  Deno.test(`${document} names only files that there are`, async () => {
    const text = await Deno.readTextFile(`${root}${document}`);
    const files = await allFiles();
    const folders = new Set(files.flatMap((file) => {
      const parts = file.split("/");
      return parts.slice(1).map((_, i) => `${parts.slice(0, i + 1).join("/")}/`);
    }));
    const names = quoted(text).filter((name) => /^\w[\w./*-]*(\.ts|\/)$/.test(name));
    assert(names.length > 0);
    const missing = names.filter((name) => {
      if (name.endsWith("/")) {
        return ![...folders].some((folder) => folder === name || folder.endsWith(`/${name}`));
      }
      // A file may be named from the folder of its package on.
      const pattern = name.replaceAll(".", "\\.").replaceAll("*", "[^/]*");
      const there = new RegExp(`(^|/)${pattern}$`);
      return !files.some((file) => there.test(file));
    });
    assertEquals(missing, []);
    const linked = [...text.matchAll(/\]\(([^)#:]+)\)/g)].map(([, path]) => path!);
    assertEquals(linked.filter((path) => !exists(`${root}${path}`)), []);
  });

  Deno.test(`${document} names only tasks that there are`, async () => {
    const text = await Deno.readTextFile(`${root}${document}`);
    const { tasks } = JSON.parse(await Deno.readTextFile(`${root}deno.json`));
    const named = [...text.matchAll(/(?:deno|deno@[\d.]+) task ([a-z][\w:-]*)/g)];
    assertEquals(named.map(([, task]) => task!).filter((task) => !(task in tasks)), []);
  });
}

Deno.test("every class and method that ARCHITECTURE.md names is in the code", async () => {
  const text = await Deno.readTextFile(`${root}ARCHITECTURE.md`);
  const words = new Set<string>();
  for (const file of await allFiles()) {
    if (!/\.(ts|js)$/.test(file) || file.endsWith("_test.ts")) continue;
    for (const [word] of (await Deno.readTextFile(`${root}${file}`)).matchAll(/\w+/g)) {
      words.add(word);
    }
  }
  const names = quoted(text)
    .map((name) => name.replace(/\(.*\)$/, ""))
    .filter((name) => /^[A-Za-z]\w*(\.[A-Za-z]\w*)*$/.test(name))
    .flatMap((name) => name.split("."));
  assert(names.length > 50);
  assertEquals(names.filter((name) => !words.has(name)), []);
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
