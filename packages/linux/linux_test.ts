import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  closeDescriptor,
  descriptorTarget,
  duplicateDescriptor,
  EventFd,
  isDescriptor,
  mapOver,
  MemoryFile,
  openDescriptor,
  OpenFlag,
  pinThread,
  PollEvent,
  PollSet,
  Seal,
  SharedMapping,
  SystemError,
  threadProcessors,
  UnixListener,
  UnixSocket,
} from "./mod.ts";

Deno.test("an event file wakes who polls it, in this thread and from another", async () => {
  const event = EventFd.create();
  const set = new PollSet();
  const place = set.add(event.descriptor);
  assertEquals(set.wait(0), 0);
  assert(!event.take());
  event.signal();
  event.signal();
  assertEquals(set.wait(0), 1);
  assertEquals(set.ready(place), PollEvent.readable);
  assert(event.take());
  assert(!event.take());
  const waiting = set.waitLater(-1);
  assertThrows(() => set.add(0), TypeError, "in use");
  event.signal();
  assertEquals(await waiting, 1);
  event.close();
  assert(!isDescriptor(event.descriptor));
  assert(!event.signal());
});

Deno.test("descriptors of one event file are told from those of another", () => {
  const one = EventFd.create();
  const other = EventFd.create();
  const again = duplicateDescriptor(one.descriptor);
  assert(descriptorTarget(one.descriptor) !== null);
  assertEquals(descriptorTarget(again), descriptorTarget(one.descriptor));
  assert(descriptorTarget(other.descriptor) !== descriptorTarget(one.descriptor));
  closeDescriptor(again);
  one.close();
  other.close();
  assertEquals(descriptorTarget(one.descriptor), null);
});

Deno.test("a poll set grows, and takes other descriptors into a place", () => {
  const events = Array.from({ length: 40 }, () => EventFd.create());
  const set = new PollSet();
  for (const event of events) set.add(event.descriptor);
  events[37]!.signal();
  events[3]!.signal();
  assertEquals(set.wait(0), 2);
  assertEquals(events.map((_, i) => set.ready(i)).filter((ready) => ready !== 0).length, 2);
  set.set(37, -1);
  assertEquals(set.wait(0), 1);
  assertThrows(() => set.set(40, 1), RangeError);
  events.forEach((event) => event.close());
});

Deno.test("a socket passes descriptors with the bytes they were sent with", () => {
  const [one, two] = UnixSocket.pair();
  const file = MemoryFile.create(4096);
  const bytes = new Uint8Array(100);
  assertEquals(two.receive(bytes).length, -1);
  one.send(new Uint8Array([1, 2, 3]));
  assertEquals(one.send(new Uint8Array([4, 5]), [file.descriptor, file.descriptor]), 2);
  one.send(new Uint8Array([6]));
  const first = two.receive(bytes);
  // What came before may be joined to nothing that has descriptors.
  const second = first.descriptors.length === 0 ? two.receive(bytes) : first;
  assertEquals(first.length, first === second ? 5 : 3);
  assertEquals(second.descriptors.length, 2);
  for (const descriptor of second.descriptors) {
    assertEquals(new MemoryFile(descriptor).size, 4096);
    closeDescriptor(descriptor);
  }
  one.close();
  const rest = two.receive(bytes);
  assertEquals(rest.length === 1 ? two.receive(bytes).length : rest.length, 0);
  assertThrows(() => two.send(new Uint8Array(1)), SystemError, "EPIPE");
  two.close();
  file.close();
});

Deno.test("descriptors that are not wanted are not taken", () => {
  const [one, two] = UnixSocket.pair();
  // The other end sees the end of the connection only when nobody has this one any more.
  const [passed, other] = UnixSocket.pair();
  one.send(new Uint8Array(1), Array(4).fill(passed.descriptor));
  passed.close();
  const got = two.receive(new Uint8Array(8), 1);
  assert(got.truncated);
  assertEquals(other.receive(new Uint8Array(1)).length, -1);
  got.descriptors.forEach(closeDescriptor);
  assertEquals(other.receive(new Uint8Array(1)).length, 0);
  for (const socket of [one, two, other]) socket.close();
});

Deno.test("a listener takes who connects", () => {
  const folder = Deno.makeTempDirSync();
  const path = `${folder}/socket`;
  try {
    const listener = new UnixListener(path);
    assertEquals(listener.accept(), null);
    assertThrows(() => new UnixListener(path), SystemError, "EADDRINUSE");
    const client = UnixSocket.connect(path);
    const server = listener.accept()!;
    client.send(new Uint8Array([7]));
    const bytes = new Uint8Array(2);
    assertEquals(server.receive(bytes), { length: 1, descriptors: [], truncated: false });
    assertEquals(bytes[0], 7);
    for (const open of [client, server, listener]) open.close();
    assertThrows(() => UnixSocket.connect(path), SystemError, "ECONNREFUSED");
    assertThrows(() => UnixSocket.connect("x".repeat(108)), RangeError);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("a mapping of a memory file is shared memory, seen through another mapping too", () => {
  const file = MemoryFile.create(3 * 4096);
  file.addSeals(Seal.shrink);
  assertEquals(file.seals & Seal.shrink, Seal.shrink);
  const one = new SharedMapping(file.descriptor, 4096, 2 * 4096);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  mapOver(new Uint8Array(memory.buffer, 0, 3 * 4096), file.descriptor, 0);
  file.close();
  assert(one.buffer instanceof SharedArrayBuffer);
  new Uint8Array(one.buffer)[5] = 42;
  assertEquals(new Uint8Array(memory.buffer)[4096 + 5], 42);
  one.unmap();
  assertEquals(new Uint8Array(one.buffer)[5], 0);
  new Uint8Array(one.buffer)[5] = 1;
  assertEquals(new Uint8Array(memory.buffer)[4096 + 5], 42);
  assertThrows(() => new SharedMapping(0, 1, 4096), RangeError, "page");
  assertThrows(() => new SharedMapping(0, 0, 0), RangeError, "bytes");
  assertThrows(() => new SharedMapping(-1, 0, 4096), SystemError, "EBADF");
});

Deno.test("a thread is pinned to processors that there are", () => {
  const before = threadProcessors();
  assert(before.length > 0);
  pinThread([before[0]!]);
  assertEquals(threadProcessors(), [before[0]!]);
  pinThread(before);
  assertThrows(() => pinThread([]), RangeError);
  assertThrows(() => pinThread([1023]), SystemError, "EINVAL");
});

Deno.test("files are opened and duplicated by descriptor", () => {
  const descriptor = openDescriptor("/dev/null", OpenFlag.readWrite);
  const other = duplicateDescriptor(descriptor);
  assert(other !== descriptor && isDescriptor(other));
  closeDescriptor(other);
  closeDescriptor(descriptor);
  closeDescriptor(-1);
  assert(!isDescriptor(other));
  assertThrows(() => openDescriptor("/nowhere/at/all", OpenFlag.readOnly), SystemError, "ENOENT");
  assertThrows(() => openDescriptor("a\0b", OpenFlag.readOnly), TypeError);
});

Deno.test("An event file that another process made one that blocks is not waited for", () => {
  const F_SETFL = 4;
  const { symbols } = Deno.dlopen("libc.so.6", {
    fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
  });
  const event = EventFd.create();
  assertEquals(symbols.fcntl(event.descriptor, F_SETFL, 0n), 0);
  assertEquals(event.take(), false);
  event.signal();
  event.signal();
  assertEquals([event.take(), event.take()], [true, false]);
  event.close();
});

Deno.test("A file of huge pages is mapped in whole ones, wherever the bytes begin", () => {
  // There may be none on this machine, and then they cannot be had without being root.
  const { symbols } = Deno.dlopen("libc.so.6", {
    memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
    ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  });
  const MFD_HUGETLB = 4;
  const HUGE = 2 << 20;
  const descriptor = symbols.memfd_create(new TextEncoder().encode("huge\0"), MFD_HUGETLB);
  const free = Number(/HugePages_Free:\s+(\d+)/.exec(Deno.readTextFileSync("/proc/meminfo"))?.[1]);
  if (descriptor < 0 || !(free >= 2)) return;
  const file = new MemoryFile(descriptor);
  assertEquals(symbols.ftruncate(descriptor, BigInt(2 * HUGE)), 0);
  const all = new SharedMapping(descriptor, 0, 2 * HUGE);
  const part = new SharedMapping(descriptor, 0xc0000, HUGE);
  new Uint8Array(all.buffer, all.byteOffset)[0xc0000 + HUGE - 1] = 7;
  const bytes = new Uint8Array(part.buffer, part.byteOffset, part.length);
  assertEquals(bytes[HUGE - 1], 7);
  assertEquals(part.address % BigInt(HUGE), 0xc0000n);
  part.unmap();
  assertEquals(bytes[HUGE - 1], 0);
  assertEquals(new Uint8Array(all.buffer, all.byteOffset)[0xc0000 + HUGE - 1], 7);
  all.unmap();
  file.close();
});

Deno.test("A socket tells which process is at its other end", () => {
  const [one, other] = UnixSocket.pair();
  assertEquals([one.peerProcess, other.peerProcess], [Deno.pid, Deno.pid]);
  one.close();
  other.close();
  assertEquals(new UnixSocket(-1).peerProcess, 0);
});
