/** Kernel modules: what they need, read out of themselves. (`modules.dep` is made at installation, so no package has it.) */

/** The `key=value` strings of a module's `.modinfo` section. */
export function moduleInfo(module: Uint8Array): { depends: string[]; aliases: string[] } {
  // Latin-1 keeps offsets; the strings themselves are ASCII.
  const content = new TextDecoder("latin1").decode(module);
  const depends = /\0depends=([^\0]*)\0/.exec(content)?.[1] ?? "";
  const aliases = [...content.matchAll(/(?<=\0)alias=([^\0]+)\0/g)].map((match) => match[1]!);
  return {
    depends: depends.split(",").filter(Boolean).map(moduleName),
    aliases,
  };
}

/** A module's name as the kernel writes it: dashes are underscores. */
export function moduleName(name: string): string {
  return name.replace(/^.*\//, "").replace(/\.ko$/, "").replaceAll("-", "_");
}

/** Names that modules need but that are not among them. */
export function missingModules(modules: ReadonlyMap<string, Uint8Array>): string[] {
  const missing = new Set<string>();
  for (const module of modules.values()) {
    for (const name of moduleInfo(module).depends) if (!modules.has(name)) missing.add(name);
  }
  return [...missing].sort();
}

/** `modules.dep` and `modules.alias` as `modprobe` reads them. */
export function moduleTables(
  modules: ReadonlyMap<string, Uint8Array>,
): { dep: string; alias: string } {
  const dep: string[] = [];
  const alias: string[] = [];
  // Each after what it needs itself.
  const all = (name: string, order: string[], visited: Set<string>): string[] => {
    for (const needed of moduleInfo(modules.get(name) ?? new Uint8Array(0)).depends) {
      if (!modules.has(needed) || visited.has(needed)) continue;
      visited.add(needed);
      all(needed, order, visited).push(needed);
    }
    return order;
  };
  for (const name of [...modules.keys()].sort()) {
    // modprobe loads them from the last to the first.
    const needed = all(name, [], new Set([name])).reverse().map((other) => ` ${other}.ko`).join("");
    dep.push(`${name}.ko:${needed}\n`);
    for (const pattern of moduleInfo(modules.get(name)!).aliases) {
      alias.push(`alias ${pattern} ${name}\n`);
    }
  }
  return { dep: dep.join(""), alias: alias.join("") };
}
