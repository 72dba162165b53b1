/** Network namespaces of a test's own. */
import { TapBackend } from "./tap.ts";

/** A network namespace that lives as long as a process in it. */
export class TestNamespace {
  readonly #holder: Deno.ChildProcess;

  private constructor(holder: Deno.ChildProcess) {
    this.#holder = holder;
  }

  /** Makes one, and waits until it is there. */
  static async make(): Promise<TestNamespace> {
    const holder = new Deno.Command("unshare", {
      args: ["--net", "sh", "-c", "echo ready; exec sleep 600"],
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const reader = holder.stdout.getReader();
    const { done } = await reader.read();
    await reader.cancel();
    if (done) {
      await holder.status;
      throw new Error("a network namespace cannot be made");
    }
    return new TestNamespace(holder);
  }

  /** For `TapOptions.namespace`. */
  get path(): string {
    return `/proc/${this.#holder.pid}/ns/net`;
  }

  /** A command that runs in it. */
  command(program: string, ...args: string[]): Deno.Command {
    return new Deno.Command("nsenter", {
      args: ["-t", `${this.#holder.pid}`, "-n", program, ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
  }

  /** Runs a program in it. @returns What it wrote. @throws If it fails. */
  async run(program: string, ...args: string[]): Promise<string> {
    const { success, stdout, stderr } = await this.command(program, ...args).output();
    if (!success) {
      throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
    }
    return new TextDecoder().decode(stdout);
  }

  /** Gives an interface an address, and takes it up. */
  async up(name: string, address: string): Promise<void> {
    await this.run("ip", "address", "add", `${address}/24`, "dev", name);
    await this.run("ip", "link", "set", name, "up");
  }

  /** Ends it. */
  async close(): Promise<void> {
    this.#holder.kill("SIGKILL");
    await this.#holder.status;
  }
}

/** Whether taps can be tested here; says so loudly if not. In CI that is a failure. */
export async function canTap(): Promise<boolean> {
  let problem: string;
  try {
    const namespace = await TestNamespace.make();
    try {
      await namespace.run("ip", "link");
      await TapBackend.open({ name: "probe", namespace: namespace.path }).close();
      return true;
    } finally {
      await namespace.close();
    }
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
  }
  if (Deno.env.has("CI")) throw new Error(`Taps cannot be tested: ${problem}`);
  console.error(`TESTS WITH A TAP ARE SKIPPED: ${problem}`);
  return false;
}
