/** The guest of the page: a login on our console, a disk that it keeps, a network with the guests of other tabs. */
import { consoleSystem } from "../console/init.ts";
import { GUESTS, NETWORK } from "./numbers.ts";

const SETUP = `
modprobe -a virtio_blk virtio_net ext4
number=$(sed -n 's/.*VIRTIO_GUEST=\\([0-9]*\\).*/\\1/p' /proc/cmdline)
hostname guest-$number
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do [ -b /dev/vda ] && break; usleep 100000; done
if [ -b /dev/vda ]; then
  # A new disk holds zeroes.
  mount -t ext4 /dev/vda /root 2>/dev/null || { mke2fs -F -q -L home /dev/vda >/dev/null 2>&1 && mount -t ext4 /dev/vda /root; }
fi
ip link set lo up
ip link set eth0 up && ip address add ${NETWORK}.$number/24 dev eth0
for i in $(seq 1 ${GUESTS}); do echo "${NETWORK}.$i guest-$i" >>/etc/hosts; done
`;

const ISSUE = `
This is Linux in your browser. Its console, disk and network card are
virtio devices made of TypeScript. Log in as root, without a password.
What you keep in /root stays there. Open this page in another tab, and
ping guest-1 or guest-2.

`;

/** The parts of the initial RAM disk. */
export function webSystem(): ReturnType<typeof consoleSystem> {
  const { init, files } = consoleSystem(SETUP);
  const encoder = new TextEncoder();
  return {
    init,
    files: [
      ...files.filter(({ path }) => path !== "/etc/issue"),
      { path: "/etc/issue", bytes: encoder.encode(ISSUE), mode: 0o644 },
      { path: "/etc/hosts", bytes: encoder.encode("127.0.0.1 localhost\n"), mode: 0o644 },
    ],
  };
}
