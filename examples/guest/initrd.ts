/** Builds the guest's initial RAM disk: busybox, kernel modules, and an init that the host talks to over a serial line. */
import { moduleTables } from "./modules.ts";

/** An entry of a cpio archive. */
export type CpioEntry =
  | { readonly path: string; readonly kind: "directory" }
  | {
    readonly path: string;
    readonly kind: "file";
    readonly bytes: Uint8Array;
    readonly mode?: number;
  }
  | { readonly path: string; readonly kind: "link"; readonly target: string }
  | {
    readonly path: string;
    readonly kind: "device";
    readonly major: number;
    readonly minor: number;
  };

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

/**
 * A cpio archive in the "newc" format that Linux takes as initial RAM disk (the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst). The same entries give the same bytes.
 */
export function buildCpio(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  let length = 0;
  const push = (bytes: Uint8Array): void => {
    parts.push(bytes);
    length += bytes.length;
    const padding = -length & 3;
    if (padding > 0) {
      parts.push(new Uint8Array(padding));
      length += padding;
    }
  };
  const encoder = new TextEncoder();
  const add = (
    inode: number,
    path: string,
    mode: number,
    data: Uint8Array,
    device = [0, 0],
  ): void => {
    const name = encoder.encode(`${path}\0`);
    const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, ...device, name.length, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
    const head = encoder.encode(header);
    const joined = new Uint8Array(head.length + name.length);
    joined.set(head);
    joined.set(name, head.length);
    push(joined);
    push(data);
  };
  const none = new Uint8Array(0);
  entries.forEach((entry, index) => {
    const inode = index + 1;
    if (entry.kind === "directory") add(inode, entry.path, S_IFDIR | 0o755, none);
    else if (entry.kind === "file") {
      add(inode, entry.path, S_IFREG | (entry.mode ?? 0o644), entry.bytes);
    } else if (entry.kind === "link") {
      add(inode, entry.path, S_IFLNK | 0o777, encoder.encode(entry.target));
    } else add(inode, entry.path, S_IFCHR | 0o600, none, [entry.major, entry.minor]);
  });
  add(0, "TRAILER!!!", 0, none);
  const archive = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    archive.set(part, at);
    at += part.length;
  }
  return archive;
}

/** What the guest says once it takes commands. */
export const READY_LINE = "guest: ready";

/**
 * The guest's init. The serial line carries one command per line, `VERB MARKER BASE64`, and is raw, so that nothing is
 * echoed or translated. `run` answers with the line `MARKER begin`, whatever the command writes, and `MARKER STATUS` on a
 * line of its own; markers are random, so no output is taken for one. `shell` lends the line to an interactive shell.
 */
const INIT = `#!/bin/busybox sh
export PATH=/bin HOME=/ TERM=linux
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
# Only a dying kernel may write into the protocol.
dmesg -n 1
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty raw -echo
ulimit -c 0
printf '\\n%s\\n' '${READY_LINE}'
while read -r verb marker data; do
  case "$verb" in
  run)
    printf '%s' "$data" | base64 -d >/tmp/command
    printf '\\n%s begin\\n' "$marker"
    sh /tmp/command </dev/null 2>&1
    printf '\\n%s %d\\n' "$marker" "$?"
    ;;
  shell)
    stty sane
    printf '\\n%s begin\\n' "$marker"
    setsid cttyhack sh
    status=$?
    # The end of its session hung the line up.
    exec </dev/ttyS0 >/dev/ttyS0 2>&1
    stty raw -echo
    printf '\\n%s %d\\n' "$marker" "$status"
    ;;
  esac
done
poweroff -f
`;

/** What goes into the RAM disk. */
export interface InitrdParts {
  /** Busybox, static. */
  readonly busybox: Uint8Array;
  /** Release of the kernel, as `uname -r` says it: the name of the folder of modules. */
  readonly kernelRelease: string;
  /** Modules by name; `modprobe` in the guest finds them. */
  readonly modules: ReadonlyMap<string, Uint8Array>;
  /** What runs as the first process, in place of the init that takes commands over the serial line. */
  readonly init?: string;
  /** More files, by absolute path. */
  readonly files?: readonly {
    readonly path: string;
    readonly bytes: Uint8Array;
    readonly mode?: number;
  }[];
}

/** Builds the RAM disk. The same parts give the same bytes. */
export function buildInitrd(parts: InitrdParts): Uint8Array {
  const encoder = new TextEncoder();
  const folder = `lib/modules/${parts.kernelRelease}`;
  const { dep, alias } = moduleTables(parts.modules);
  const directories = ["bin", "dev", "etc", "lib", "lib/modules", folder, "mnt", "proc", "sbin"]
    .concat(["sys", "tmp"]);
  const entries: CpioEntry[] = directories.map((path) => ({ path, kind: "directory" }));
  entries.push(
    { path: "dev/console", kind: "device", major: 5, minor: 1 },
    { path: "bin/busybox", kind: "file", mode: 0o755, bytes: parts.busybox },
    { path: "bin/sh", kind: "link", target: "busybox" },
    // Where the kernel looks when it wants a module itself.
    { path: "sbin/modprobe", kind: "link", target: "../bin/busybox" },
    { path: "init", kind: "file", mode: 0o755, bytes: encoder.encode(parts.init ?? INIT) },
    { path: `${folder}/modules.dep`, kind: "file", bytes: encoder.encode(dep) },
    { path: `${folder}/modules.alias`, kind: "file", bytes: encoder.encode(alias) },
  );
  for (const name of [...parts.modules.keys()].sort()) {
    entries.push({ path: `${folder}/${name}.ko`, kind: "file", bytes: parts.modules.get(name)! });
  }
  const made = new Set(directories);
  for (const { path, bytes, mode } of parts.files ?? []) {
    const relative = path.replace(/^\//, "");
    const names = relative.split("/");
    for (let depth = 1; depth < names.length; depth++) {
      const parent = names.slice(0, depth).join("/");
      if (made.has(parent)) continue;
      made.add(parent);
      entries.push({ path: parent, kind: "directory" });
    }
    entries.push({ path: relative, kind: "file", bytes, mode: mode ?? 0o644 });
  }
  return buildCpio(entries);
}
