/**
 * The system of a guest that knows no other console than ours: busybox's init with a getty on hvc0, so that what the user
 * meets is what a server's console is: a login, then a shell with job control.
 */

/** What the prompt for a name begins with. */
export const HOST_NAME = "virtio";

const init = (setup: string): string =>
  `#!/bin/busybox sh
export PATH=/bin HOME=/
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /root
mount -t devpts devpts /dev/pts
hostname ${HOST_NAME}
# Here the console comes to life.
modprobe -a virtio_pci virtio_mmio virtio_console
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do [ -c /dev/hvc0 ] && break; usleep 100000; done
# The kernel does not repeat to a console that comes late what it has said so far.
grep -qw quiet /proc/cmdline || dmesg >/dev/hvc0
${setup}
exec init
`;

const INITTAB = `::sysinit:/bin/name-ports
::respawn:uevent /bin/name-ports
hvc0::respawn:/bin/getty -L 0 hvc0
::shutdown:/bin/sync
`;

/** A script that does what udev does on a larger system: gives ports their names. */
export const NAME_PORTS = `#!/bin/sh
mkdir -p /dev/virtio-ports
cd /sys/class/virtio-ports || exit 0
for port in *; do
  name=$(cat "$port/name" 2>/dev/null)
  [ -n "$name" ] && ln -sfn "../$port" "/dev/virtio-ports/$name"
done
for link in /dev/virtio-ports/*; do
  [ -e "$link" ] || rm -f "$link"
done
`;

const PROFILE = `export PATH=/bin
alias ls='ls --color=auto'
# What the kernel was told of the terminal at the other end.
term=$(sed -n 's/.*VIRTIO_TERM=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
[ -n "$term" ] && export TERM=$term
PS1='\\[\\e[1;32m\\]\\h\\[\\e[0m\\]:\\[\\e[1;34m\\]\\w\\[\\e[0m\\]# '
`;

const ISSUE =
  "\nThis console is a virtio device made of TypeScript. Log in as root, without a password.\n\n";

const encoder = new TextEncoder();

/**
 * The parts of the initial RAM disk that make this system.
 *
 * @param setup Shell commands to run once the console is there, before anybody logs in.
 */
export function consoleSystem(setup = ""): {
  init: string;
  files: { path: string; bytes: Uint8Array; mode?: number }[];
} {
  const file = (path: string, text: string, mode = 0o644) => ({
    path,
    bytes: encoder.encode(text),
    mode,
  });
  return {
    init: init(setup),
    files: [
      file("/etc/inittab", INITTAB),
      file("/etc/passwd", "root::0:0:root:/root:/bin/sh\n"),
      file("/etc/group", "root:x:0:\n"),
      file("/etc/profile", PROFILE),
      file("/etc/issue", ISSUE),
      file("/bin/name-ports", NAME_PORTS, 0o755),
    ],
  };
}
