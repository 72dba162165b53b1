/** What tests of front ends share. Not published. */

/** Descriptors of this process that are open; the look itself is one. */
export function openDescriptors(): string[] {
  return [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => {
    try {
      return `${name} ${Deno.readLinkSync(`/proc/self/fd/${name}`)}`;
    } catch {
      return "";
    }
  }).filter((each) => each !== "").sort();
}
