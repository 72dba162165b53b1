/**
 * Fetches Debian packages with apt, for i386 or another processor: without root, and without reading or changing what the host's own apt knows.
 * Everything apt writes goes into a folder of ours; its sources are those of the host's configuration files.
 */

/** Thrown where a package cannot be had; the message is one sentence for the user. */
export class FetchError extends Error {
  override readonly name: string = "FetchError";
}

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** The last Debian with a kernel for i386: where to look if the host's own release has none. */
const LAST_I386_SUITE = "bookworm";

/** One archive: an address and suites, each with components. */
export interface AptSource {
  /** Address of the archive. */
  readonly uri: string;
  /** Release names, such as `bookworm` and `bookworm-updates`. */
  readonly suites: readonly string[];
  /** Path of the keyring that signs it. */
  readonly signedBy: string;
}

/** Whether an address is that of Debian itself (`…/debian`, `…/debian-security`): others have no kernel for i386. */
function isDebian(uri: string): boolean {
  return /\/debian(-security)?\/?$/.test(uri);
}

/**
 * The Debian archives that a sources file names, in either of apt's formats.
 *
 * @param deb822 Whether the file is in the newer format, as `*.sources` are.
 */
export function parseSources(text: string, deb822: boolean): AptSource[] {
  const sources: AptSource[] = [];
  if (deb822) {
    for (const stanza of text.split(/\n[ \t]*\n/)) {
      const fields = new Map<string, string>();
      let last = "";
      for (const line of stanza.split("\n")) {
        if (line.startsWith("#") || line.trim() === "") continue;
        if (/^[ \t]/.test(line)) {
          fields.set(last, `${fields.get(last) ?? ""} ${line.trim()}`);
          continue;
        }
        const colon = line.indexOf(":");
        last = line.slice(0, colon).toLowerCase();
        fields.set(last, line.slice(colon + 1).trim());
      }
      const words = (name: string): string[] =>
        (fields.get(name) ?? "").split(/\s+/).filter(Boolean);
      if (!words("types").includes("deb") || fields.get("enabled")?.toLowerCase() === "no") {
        continue;
      }
      const signedBy = fields.get("signed-by") ?? "";
      for (const uri of words("uris").filter(isDebian)) {
        sources.push({
          uri,
          suites: words("suites"),
          signedBy: signedBy.startsWith("/") ? signedBy : KEYRING,
        });
      }
    }
    return sources;
  }
  for (const line of text.split("\n")) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s/.exec(
      `${line.replace(/#.*/, "")} `,
    );
    if (match === null || !isDebian(match[2]!)) continue;
    const signedBy = /signed-by=(\/\S+)/.exec(match[1] ?? "")?.[1];
    sources.push({ uri: match[2]!, suites: [match[3]!], signedBy: signedBy ?? KEYRING });
  }
  return sources;
}

/** Output and status of a program. */
interface Ran {
  readonly ok: boolean;
  readonly output: string;
  readonly errors: string;
}

/** Runs a program to its end. @throws {FetchError} If it is not there. */
async function run(program: string, args: string[], cwd: string, env = {}): Promise<Ran> {
  let result: Deno.CommandOutput;
  try {
    result = await new Deno.Command(program, {
      args,
      cwd,
      env: { LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new FetchError(
      `There is no ${program} on this machine, and the guest's kernel comes as a Debian package`,
    );
  }
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { ok: result.success, output: text(result.stdout), errors: text(result.stderr) };
}

async function readTextIfAny(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch {
    return "";
  }
}

async function listIfAny(path: string): Promise<string[]> {
  try {
    const names: string[] = [];
    for await (const entry of Deno.readDir(path)) if (!entry.isDirectory) names.push(entry.name);
    return names.sort();
  } catch {
    return [];
  }
}

/** apt with a state of its own. */
export class PrivateApt {
  readonly #folder: string;
  readonly #progress: (line: string) => void;
  readonly #architecture: string;
  #ready: Promise<void> | null = null;
  #failure = "";

  /**
   * @param folder Where apt's state and configuration go; made if missing.
   * @param progress Told what happens, a line at a time.
   * @param architecture Debian's name of the processor.
   */
  constructor(folder: string, progress: (line: string) => void, architecture = "i386") {
    this.#folder = folder;
    this.#progress = progress;
    this.#architecture = architecture;
  }

  /**
   * The real package behind a metapackage: the first dependency whose name begins as the metapackage's does.
   *
   * @param stem What its name begins with; the metapackage's name less its last word unless given.
   * @throws {FetchError} If apt does not know the metapackage.
   */
  async resolve(
    metapackage: string,
    stem = metapackage.replace(/-[^-]+$/, "-"),
  ): Promise<string> {
    await this.#update();
    let depends = await this.#dependencies(metapackage);
    if (depends === null) {
      // A release without kernels for i386: look at the last one that had them, in the same archives.
      await this.#configure(LAST_I386_SUITE);
      await this.#refresh();
      depends = await this.#dependencies(metapackage);
    }
    const name = depends?.find((dependency) => dependency.startsWith(stem));
    if (name === undefined) throw this.#unknown(metapackage);
    return name;
  }

  /**
   * Downloads packages; apt checks their hashes against the signed lists.
   *
   * @param folder Where the `.deb` files go.
   * @returns Their paths, in the order of `names`.
   * @throws {FetchError} If one cannot be had.
   */
  async download(names: readonly string[], folder: string): Promise<string[]> {
    await this.#update();
    await Deno.mkdir(folder, { recursive: true });
    this.#progress(`fetching ${names.join(", ")}`);
    const result = await this.#apt("apt-get", ["download", ...names], folder);
    if (!result.ok) {
      const reason = /^E: (.*)$/m.exec(result.errors)?.[1] ?? this.#failure;
      throw new FetchError(`apt cannot fetch ${names.join(", ")}: ${reason || "no reason given"}`);
    }
    const files = await listIfAny(folder);
    return names.map((name) => {
      const file = files.filter((file) => file.startsWith(`${name}_`)).at(-1);
      if (file === undefined) throw new FetchError(`apt fetched no file for ${name}`);
      return `${folder}/${file}`;
    });
  }

  #unknown(name: string): FetchError {
    const why = this.#failure === "" ? "" : `: ${this.#failure.replace(/\s+/g, " ")}`;
    return new FetchError(
      `apt finds no package ${name} for ${this.#architecture} in this machine's sources${why}`,
    );
  }

  async #dependencies(name: string): Promise<string[] | null> {
    const result = await this.#apt("apt-cache", ["show", "--no-all-versions", name]);
    const line = /^Depends: (.*)$/m.exec(result.output)?.[1];
    return line?.split(/[,|]/).map((item) => item.trim().split(/[ :]/)[0]!) ?? null;
  }

  #update(): Promise<void> {
    this.#ready ??= (async () => {
      await this.#configure(null);
      await this.#refresh();
    })();
    return this.#ready;
  }

  /** Writes sources and options; `suite` replaces the release that the host's sources name. */
  async #configure(suite: string | null): Promise<void> {
    const folder = this.#folder;
    for (const name of ["state/lists/partial", "cache/archives/partial", "conf.d", "empty"]) {
      await Deno.mkdir(`${folder}/${name}`, { recursive: true });
    }
    const sources = parseSources(await readTextIfAny("/etc/apt/sources.list"), false);
    for (const name of await listIfAny("/etc/apt/sources.list.d")) {
      const deb822 = name.endsWith(".sources");
      if (!deb822 && !name.endsWith(".list")) continue;
      sources.push(...parseSources(await readTextIfAny(`/etc/apt/sources.list.d/${name}`), deb822));
    }
    if (sources.length === 0) {
      throw new FetchError(
        "apt's configuration on this machine names no Debian archive, and the guest's kernel comes from Debian",
      );
    }
    const keyrings = new Set(sources.map(({ signedBy }) => signedBy));
    for (const path of keyrings) {
      // Without the file apt uses the keys that it trusts for every archive.
      if (!await Deno.stat(path).then((info) => info.isFile, () => false)) keyrings.delete(path);
    }
    const stanzas = sources.map(({ uri, suites, signedBy }) => {
      const named = suite === null
        ? suites
        : [uri.includes("security") ? `${suite}-security` : suite];
      return `Types: deb\nURIs: ${uri}\nSuites: ${named.join(" ")}\nComponents: main\n${
        keyrings.has(signedBy) ? `Signed-By: ${signedBy}\n` : ""
      }`;
    });
    await Deno.writeTextFile(`${folder}/debian.sources`, stanzas.join("\n"));
    await Deno.writeTextFile(`${folder}/status`, "");
    // The host's options (proxies above all), less its hooks: those act on the host's own files.
    await Deno.remove(`${folder}/conf.d`, { recursive: true });
    await Deno.mkdir(`${folder}/conf.d`);
    const options = await readTextIfAny("/etc/apt/apt.conf");
    if (options !== "") await Deno.writeTextFile(`${folder}/conf.d/00host.conf`, options);
    for (const name of await listIfAny("/etc/apt/apt.conf.d")) {
      const text = await readTextIfAny(`/etc/apt/apt.conf.d/${name}`);
      await Deno.writeTextFile(`${folder}/conf.d/${name}`, text);
    }
    const hooks = ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke"]
      .concat(["APT::Update::Post-Invoke-Success", "Acquire::IndexTargets::deb::DEP-11"]);
    await Deno.writeTextFile(
      `${folder}/conf.d/zz-last.conf`,
      hooks.map((name) => `#clear ${name};\n`).join(""),
    );
    await Deno.writeTextFile(
      `${folder}/apt.conf`,
      `Dir::Etc::parts "${folder}/conf.d";\nDir::Etc::main "/dev/null";\n`,
    );
  }

  async #refresh(): Promise<void> {
    this.#progress("reading Debian's package lists");
    const result = await this.#apt("apt-get", ["update"]);
    // One list of several may fail (a mirror in the middle of its update), and apt calls that a success or not as it likes:
    // what matters is whether packages are found.
    this.#failure = /^[EW]: (Failed to fetch .*|.*Could not .*)$/m.exec(result.errors)?.[1] ??
      (result.ok ? "" : "apt-get update failed");
  }

  #apt(program: string, args: string[], cwd = this.#folder): Promise<Ran> {
    const folder = this.#folder;
    const settings: Record<string, string> = {
      "Dir::State": `${folder}/state`,
      "Dir::State::status": `${folder}/status`,
      "Dir::Cache": `${folder}/cache`,
      "Dir::Etc::sourcelist": `${folder}/debian.sources`,
      "Dir::Etc::sourceparts": `${folder}/empty`,
      "Dir::Etc::preferences": "/dev/null",
      "Dir::Etc::preferencesparts": `${folder}/empty`,
      "APT::Architecture": this.#architecture,
      "APT::Architectures": this.#architecture,
      "APT::Sandbox::User": "root",
      "APT::Get::AllowUnauthenticated": "false",
      "Acquire::AllowInsecureRepositories": "false",
      "Acquire::Languages": "none",
      "Acquire::Retries": "2",
      "Acquire::http::Timeout": "30",
      "Acquire::https::Timeout": "30",
    };
    const options = Object.entries(settings).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
    return run(program, [...options, ...args], cwd, { APT_CONFIG: `${folder}/apt.conf` });
  }
}
