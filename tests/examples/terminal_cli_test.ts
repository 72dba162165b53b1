/** Examples on a terminal, with their devices in process and in a worker: keys go to the guest, and it is given back as it was. */
import { assertEquals } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import { OnTerminal } from "./terminal.ts";

const hasLinux = await guestFiles() !== null;

for (const place of ["process", "worker"]) {
  // In workers v86's memory has to be a file's, which is for Linux.
  const ignore = !hasLinux || (place !== "process" && Deno.build.os !== "linux");

  Deno.test({
    name:
      `example:console --in ${place} on a terminal: its size, a resize, Ctrl-C, colours, a key to leave`,
    ignore,
    fn: async () => {
      const user = await OnTerminal.start("console", ["--escape", "B", "--in", place]);
      await user.expect(/Ctrl-B x leaves/);
      await user.expect(/login: /);
      await user.type("root\r");
      // deno-lint-ignore no-control-regex -- the prompt is in colours
      await user.expect(/\x1b\[1;32mvirtio\x1b\[0m/);
      await user.type("stty size; echo $TERM\r");
      await user.expect(/30 100\r+\n[^]*xterm-256color\r+\n/);
      await user.resize(123, 45);
      await user.type(
        "for i in 1 2 3 4 5 6 7 8 9; do [ \"$(stty size)\" = '45 123' ] || usleep 100000; done; stty size\r",
      );
      await user.expect(/45 123\r+\n/);
      await interrupt(user);
      // More than any buffer on the way holds.
      await user.type("seq 1 20000 | tail -c 100000; echo en''d\r");
      const counted = await user.expect(/end\r+\n/);
      assertEquals(counted.match(/^\d+(?=\r+$)/gm)!.slice(-10_000), numbers(10_001, 20_000));
      await user.type("\x02x");
      await user.expect(/you left the guest/);
      assertEquals(await user.left(), { status: 0, settings: user.before });
    },
  });

  Deno.test({
    name: `example:blk --shell --in ${place} on a terminal: Ctrl-C is the guest's, exit leaves`,
    ignore,
    fn: async () => {
      const user = await OnTerminal.start("blk", ["--shell", "--megabytes", "1", "--in", place]);
      await user.expect(/The disk works/);
      await user.expect(/"exit" leaves it/);
      await user.type("echo 6*7=$((6*7))\r");
      await user.expect(/6\*7=42\r+\n/);
      await interrupt(user);
      await user.type("dd if=/dev/vda of=/dev/null bs=1M count=8 iflag=direct; echo re''ad=$?\r");
      await user.expect(/8\+0 records in[^]*read=0\r+\n/);
      await user.type("exit\r");
      assertEquals(await user.left(), { status: 0, settings: user.before });
    },
  });
}

/** Something runs, Ctrl-C ends it and nothing else, as the status says that shells have for SIGINT. */
async function interrupt(user: OnTerminal): Promise<void> {
  await user.type("sh -c \"echo wait''ing; exec sleep 1000\"\r");
  await user.expect(/waiting\r+\n/);
  await user.type("\x03");
  await user.expect(/# /);
  await user.type("echo status''=$?\r");
  await user.expect(/status=130\r+\n/);
}

function numbers(first: number, last: number): string[] {
  return Array.from({ length: last - first + 1 }, (_, i) => String(first + i));
}
