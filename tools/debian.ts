/** Debian packages that tests and benchmarks use: programs of other people that judge ours. */

/** What the whole suite wants. */
export const TEST_PACKAGES: readonly string[] = [
  "bind9-dnsutils",
  "chromium",
  "curl",
  "dhcpcd-base",
  "dpdk-dev",
  "e2fsprogs",
  "fio",
  "iperf3",
  "iproute2",
  "iputils-ping",
  "ipxe-qemu",
  "isc-dhcp-client",
  "nbdkit",
  "passt",
  "qemu-system-common",
  "qemu-system-x86",
  "qemu-utils",
  "tshark",
];

async function run(command: string, args: readonly string[]): Promise<boolean> {
  const { success } = await new Deno.Command(command, {
    args: [...args],
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).output().catch(() => ({ success: false }));
  return success;
}

/** Which of some packages are not installed. */
export async function missingPackages(names: readonly string[]): Promise<string[]> {
  const missing: string[] = [];
  for (const name of names) if (!await run("dpkg", ["-s", name])) missing.push(name);
  return missing;
}

/**
 * Installs packages that are missing, where this process may: as root, with apt.
 *
 * @returns Whether all are there now.
 */
export async function installPackages(names: readonly string[]): Promise<boolean> {
  const missing = await missingPackages(names);
  if (missing.length === 0) return true;
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  // Tests run beside each other, and each may want something.
  const install = [
    ...["-o", "DPkg::Lock::Timeout=600", "install", "-y", "-q", "--no-install-recommends"],
    ...missing,
  ];
  if (await run("apt-get", install)) return true;
  await run("apt-get", ["-o", "DPkg::Lock::Timeout=600", "update", "-q"]);
  return await run("apt-get", install);
}
