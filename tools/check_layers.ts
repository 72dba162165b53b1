/**
 * Checks that imports between packages point down only, and that `Deno` is named only where it may be. ARCHITECTURE.md draws
 * the same list. Run by `deno task test`; exits with 1 and a line for each offence.
 */
import { filesBelow } from "./files.ts";

/** What each package may import. */
const ALLOWED: Record<string, readonly string[]> = {
  memory: [],
  linux: [],
  vring: ["memory"],
  device: ["memory", "vring"],
  transport: ["memory", "vring", "device"],
  blk: ["memory", "vring", "device"],
  net: ["memory", "vring", "device"],
  console: ["memory", "vring", "device"],
  v86: ["memory", "transport"],
  worker: ["memory", "vring", "device"],
  inspect: ["memory", "vring", "device"],
  "vhost-user": ["memory", "vring", "device", "linux"],
  virbr: ["memory", "device", "net"],
};

/** Files of packages that may touch `Deno`: back ends that are files, sockets or terminals of the operating system. */
const DENO_FILES =
  /^packages\/(linux\/[a-z0-9_]+|vhost-user\/([a-z]+\/)*[a-z0-9_]+|v86\/shared_memory|blk\/backends\/(file|linux|nbd)|console\/backends\/(file|unix|terminal)|net\/backends\/(stream|tap|pcapng)|virbr\/outside\/deno)(_[a-z]+)?\.ts$/;

/** The code of a module without comments, so that examples in doc comments do not count. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}

const root = new URL("..", import.meta.url).pathname;
const problems: string[] = [];
let files = 0;
for await (const entry of Deno.readDir(`${root}packages`)) {
  const name = entry.name;
  const allowed = ALLOWED[name];
  if (allowed === undefined) {
    problems.push(`packages/${name}: say in tools/check_layers.ts what it may import`);
    continue;
  }
  for (const file of await filesBelow(`packages/${name}`, ".ts")) {
    // Tests and their helpers may reach across: they join what the packages keep apart.
    const isTest = /(_test|_testing|\/testing)\.ts$|\/testing\//.test(file);
    const code = withoutComments(await Deno.readTextFile(root + file));
    files++;
    if (isTest) continue;
    for (const [, specifier] of code.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)) {
      const other = /^@virtio\/([a-z0-9-]+)/.exec(specifier!)?.[1];
      // System calls are for the files that may name Deno, whatever their package.
      if (other === "linux" && DENO_FILES.test(file)) continue;
      if (other !== undefined && other !== name && !allowed.includes(other)) {
        problems.push(`${file}: ${name} may not import @virtio/${other}`);
      }
      if (specifier!.startsWith("../../")) {
        problems.push(`${file}: imports ${specifier}, out of its package`);
      }
      if (specifier!.startsWith("@std/")) {
        problems.push(`${file}: ${specifier} is for tests and tools`);
      }
    }
    if (/\bDeno\./.test(code) && !DENO_FILES.test(file)) {
      problems.push(`${file}: names Deno, but must run in browsers and Node too`);
    }
  }
}
for (const problem of problems.sort()) console.error(problem);
if (problems.length > 0) Deno.exit(1);
console.log(`Layers: ${files} files keep to them`);
