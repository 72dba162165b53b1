/** Files of the tree. */

const root = new URL("..", import.meta.url).pathname;

/**
 * All files below a folder, in order.
 *
 * @param folder From the root of the tree.
 * @param end How their names end.
 * @returns Paths from the root of the tree.
 */
export async function filesBelow(folder: string, end = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(root + folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) found.push(...await filesBelow(path, end));
    else if (entry.name.endsWith(end)) found.push(path);
  }
  return found.sort();
}
