/**
 * Network namespaces in a row: `guest` has nothing but a tap; `host` is where programs that join it to the world run; `outside` is
 * where the servers are, two hops away and nobody's own address. Nothing of it can reach the machine's real network.
 */
import { TestNamespace } from "../../packages/net/backends/tap_testing.ts";

/** The server's address. */
export const SERVER = "10.98.0.1";
const HOST_ADDRESS = "10.99.0.1";
const OUTSIDE_ADDRESS = "10.99.0.2";

/** The namespaces, and programs in them. */
export class World {
  /** Where gateways run. */
  readonly host: TestNamespace;
  /** Where servers run. */
  readonly outside: TestNamespace;
  readonly #guests: TestNamespace[] = [];
  readonly #children: Deno.ChildProcess[] = [];
  readonly #mounts: string[] = [];

  private constructor(host: TestNamespace, outside: TestNamespace) {
    this.host = host;
    this.outside = outside;
  }

  /** Makes host and outside, with a wire that is no bottleneck between them. */
  static async make(): Promise<World> {
    const host = await TestNamespace.make();
    const outside = await TestNamespace.make();
    const world = new World(host, outside);
    const pid = /\d+/.exec(outside.path)![0];
    await host.run(
      "ip",
      "link",
      "add",
      "wire",
      "mtu",
      "65520",
      "type",
      "veth",
      "peer",
      "name",
      "far",
    );
    await host.run("ip", "link", "set", "far", "netns", pid);
    await host.run("ip", "link", "set", "lo", "up");
    await outside.run("ip", "link", "set", "lo", "up");
    await outside.run("ip", "link", "set", "far", "mtu", "65520");
    await host.up("wire", HOST_ADDRESS);
    await outside.up("far", OUTSIDE_ADDRESS);
    await outside.run("ip", "address", "add", `${SERVER}/32`, "dev", "lo");
    await host.run("ip", "route", "add", "default", "via", OUTSIDE_ADDRESS);
    return world;
  }

  /** Makes a namespace for one more guest. */
  async guest(): Promise<TestNamespace> {
    const guest = await TestNamespace.make();
    this.#guests.push(guest);
    await guest.run("ip", "link", "set", "lo", "up");
    return guest;
  }

  /**
   * Starts a program that runs until the end.
   *
   * @param where In which namespace.
   * @param ready Resolves `start` when a line that it writes to either output matches; at once if null.
   * @throws {Error} If it ends before that.
   */
  async start(
    where: TestNamespace,
    ready: RegExp | null,
    program: string,
    ...args: string[]
  ): Promise<Deno.ChildProcess> {
    const child = where.command(program, ...args).spawn();
    this.#children.push(child);
    let said = "";
    const readies = Promise.withResolvers<void>();
    if (ready === null) readies.resolve();
    const listen = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
      for await (const text of stream.pipeThrough(new TextDecoderStream() as never)) {
        said = (said + text).slice(-4000);
        if (ready?.test(said)) readies.resolve();
      }
    };
    const ends = Promise.all([listen(child.stdout), listen(child.stderr)]);
    ends.then(() => readies.reject(new Error(`${program} ended: ${said}`)), () => {});
    readies.promise.catch(() => {});
    await readies.promise;
    return child;
  }

  /** A file that is a namespace, for programs that gave up the right to look into other processes. */
  async mount(namespace: TestNamespace): Promise<string> {
    const path = await Deno.makeTempFile({ prefix: "netns" });
    this.#mounts.push(path);
    await this.host.run("mount", "--bind", namespace.path, path);
    return path;
  }

  /** Ends everything. */
  async close(): Promise<void> {
    for (const child of this.#children) {
      try {
        child.kill("SIGTERM");
      } catch {
        // ended by itself
      }
    }
    for (const child of this.#children) {
      const timer = setTimeout(() => child.kill("SIGKILL"), 2000);
      await child.status;
      clearTimeout(timer);
    }
    for (const path of this.#mounts) {
      await this.host.run("umount", path);
      await Deno.remove(path);
    }
    for (const guest of this.#guests) await guest.close();
    await this.host.close();
    await this.outside.close();
  }
}

/** Waits until an interface is up with an address. */
export async function waitForAddress(guest: TestNamespace, name: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const text = await guest.run("ip", "-4", "address", "show", "dev", name).catch(() => "");
    if (text.includes("inet ") && text.includes("UP")) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${name} got no address`);
}
