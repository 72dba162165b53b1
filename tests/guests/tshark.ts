/** Reads captures with tshark: what is on the wire, as somebody else sees it. */
import { hasTool, installTool, run } from "../../packages/net/backends/tool_testing.ts";

await installTool("tshark", "tshark");

/** Whether tshark is there. Where it is not, tests that need it are skipped; in CI that is a failure. */
export const hasTshark: boolean = await hasTool("tshark", ["--version"], "captures with tshark");

/**
 * Runs tshark on a file.
 *
 * @param args More arguments, such as a display filter (`-Y`) and fields to print.
 * @returns The lines that it prints.
 */
export async function tshark(path: string, args: readonly string[]): Promise<string[]> {
  const output = await run("tshark", "-n", "-r", path, ...args);
  return output.split("\n").filter((line) => line !== "");
}
