/** Network namespaces of a test's own. */
import { assert, assertEquals } from "@std/assert";
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

/**
 * Sends megabytes by TCP from one namespace to another, and compares sums. Nobody closes half a connection: there are
 * versions of passt that then repeat what comes the other way for ever.
 *
 * Segments that the other end drops are sent again for ever: after a minute both programs give up.
 *
 * @returns Seconds.
 */
export async function transfer(
  from: TestNamespace,
  to: TestNamespace,
  address: string,
  port: number,
  megabytes: number,
): Promise<number> {
  // What is the same at both ends: the time limit, and the sum of all bytes, each times its place.
  const common = `
    const giveUp = () => {
      console.error("the bytes were not there after a minute");
      Deno.exit(1);
    };
    Deno.unrefTimer(setTimeout(giveUp, 60_000));
    let sum = 0, count = 0;
    const add = (bytes) => { for (const byte of bytes) sum = (sum * 31 + byte + count++) % 4294967291; };
  `;
  const server = to.command(
    Deno.execPath(),
    "eval",
    "-q",
    `${common}
    const listener = Deno.listen({ hostname: "0.0.0.0", port: ${port} });
    console.log("ready");
    const socket = await listener.accept();
    const chunk = new Uint8Array(262144);
    while (count < ${megabytes << 20}) add(chunk.subarray(0, await socket.read(chunk)));
    await socket.write(new TextEncoder().encode(sum + " " + count));
    Deno.exit(0);`,
  ).spawn();
  const reader = server.stdout.getReader();
  await reader.read();
  const client = from.command(
    Deno.execPath(),
    "eval",
    "-q",
    `${common}
    const bytes = new Uint8Array(1 << 20);
    for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + (i >> 9)) & 255;
    const start = performance.now();
    const socket = await Deno.connect({ hostname: "${address}", port: ${port} });
    for (let i = 0; i < ${megabytes}; i++) {
      bytes[i] ^= 255;
      for (let at = 0; at < bytes.length;) at += await socket.write(bytes.subarray(at));
      add(bytes);
    }
    const answer = new Uint8Array(100);
    const text = new TextDecoder().decode(answer.subarray(0, await socket.read(answer)));
    console.log(JSON.stringify({ here: sum + " " + count, there: text, ms: performance.now() - start }));`,
  );
  const { stdout, stderr } = await client.output();
  await reader.cancel();
  await server.stderr.cancel();
  await server.status;
  const output = new TextDecoder().decode(stdout);
  assert(output !== "", new TextDecoder().decode(stderr));
  const { here, there, ms } = JSON.parse(output);
  assertEquals(there, here);
  assert(here.endsWith(` ${megabytes << 20}`));
  return ms / 1000;
}
