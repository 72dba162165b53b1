import { assert, assertEquals, assertThrows } from "@std/assert";
import { DatagramSocket } from "./datagram_socket.ts";
import { Errno } from "./errno.ts";
import { PollEvent, PollSet } from "./poll_set.ts";

const LOOPBACK = { 4: new Uint8Array([127, 0, 0, 1]), 6: new Uint8Array(16) } as const;
LOOPBACK[6][15] = 1;

Deno.test("datagrams go both ways, and who sent them is known", () => {
  for (const version of [4, 6] as const) {
    const loopback = LOOPBACK[version];
    const [a, b] = [0, 1].map(() => {
      const socket = DatagramSocket.open(version, "udp");
      socket.bind(loopback, 0);
      return socket;
    });
    const into = new Uint8Array(100);
    assertEquals(b!.receive(into), -1);
    assert(a!.send(new Uint8Array([1, 2, 3]), loopback, b!.local.port));
    assertEquals(b!.receive(into), 3);
    assertEquals(b!.from, { address: loopback, port: a!.local.port });
    assertEquals([...into.subarray(0, 3)], [1, 2, 3]);
    assertThrows(() => a!.send(into, new Uint8Array(5), 1), RangeError, "bytes");
    a!.close();
    a!.close();
    b!.close();
  }
});

Deno.test("what was sent to a port at which nobody listens comes back as an error", () => {
  for (const version of [4, 6] as const) {
    const loopback = LOOPBACK[version];
    const socket = DatagramSocket.open(version, "udp");
    socket.wantErrors();
    const other = DatagramSocket.open(version, "udp");
    other.bind(loopback, 0);
    const { port } = other.local;
    other.close();
    assertEquals(socket.receiveError(), null);
    socket.send(new Uint8Array([1]), loopback, port);
    const poll = new PollSet();
    poll.add(socket.descriptor);
    assertEquals(poll.wait(2000), 1);
    assert((poll.ready(0) & PollEvent.error) !== 0);
    assertEquals(socket.receiveError(), {
      errno: Errno.ECONNREFUSED,
      to: { address: loopback, port },
    });
    assertEquals(socket.receiveError(), null);
    // The next one goes as if nothing had been.
    assert(socket.send(new Uint8Array([1]), loopback, port));
    socket.close();
  }
});
