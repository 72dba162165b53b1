/** The gateway's TCP allocates no object for a segment, in either direction; measured as in `allocation_test.ts`. */
import { assert } from "@std/assert";
import { allocateBytes } from "@virtio/memory";
import type { AddressWords, Guest, IpOutput, IpPacket, Path } from "@virtio/virbr";
import type { Connection } from "../../packages/virbr/tcp/connection.ts";
import { TcpEngine } from "../../packages/virbr/tcp/engine.ts";
import { BATCH, bytesPerRequest } from "./bytes.ts";

const HEADER = 20;
const PAYLOAD = 1460;
const ACK = 16;
/** Less than any object for each segment: what there is comes once a turn, from reading the clock. */
const LITTLE = 6;
const LOCAL: AddressWords = new Uint32Array([0, 0, 0xffff, 0xc633_6407]);
const ADDRESS: AddressWords = new Uint32Array([0, 0, 0xffff, 0xc0a8_7a05]);

/** An IP layer that counts. */
class Output implements IpOutput {
  readonly buffer: Uint8Array = allocateBytes(70_000);
  readonly view: DataView = new DataView(this.buffer.buffer);
  readonly start = 34;
  readonly room = 65_515;
  readonly addresses: readonly AddressWords[] = [];
  count = 0;
  bytes = 0;

  path(guest: Guest, source: AddressWords, destination: AddressWords, protocol: number): Path {
    const rest = { trafficClass: 0, hopLimit: 64, dontFragment: true };
    const version = 4;
    return { guest, source, destination, protocol, version, mtu: 1500, ipHeaderSize: 20, ...rest };
  }
  begin(): boolean {
    return true;
  }
  finish(length: number): void {
    this.count++;
    this.bytes += length - HEADER;
  }
  refuse(): void {}
  reject(): void {}
  find(): null {
    return null;
  }
}

/** A connection that stands, and the guest's end of it: one segment that is written anew each time. */
class Rig {
  readonly output = new Output();
  readonly engine: TcpEngine;
  readonly #buffer = allocateBytes(HEADER + PAYLOAD);
  readonly #view = new DataView(this.#buffer.buffer);
  readonly #packet: { -readonly [key in keyof IpPacket]: IpPacket[key] };
  #connection!: Connection;
  #seq = 1000;
  #ack: number;
  received = 0;

  constructor() {
    const timing = { now: () => performance.now(), after: () => 0, cancel() {}, defer() {} };
    this.engine = new TcpEngine(this.output, { timing });
    const guest = {
      mac: "",
      name: "",
      port: "",
      addresses: [],
      gone: false,
      tso4: true,
      tso6: true,
    };
    this.#packet = {
      guest,
      version: 4,
      source: ADDRESS,
      destination: LOCAL,
      local: false,
      protocol: 6,
      hopLimit: 64,
      trafficClass: 0,
      dontFragment: true,
      buffer: this.#buffer,
      view: this.#view,
      headerOffset: 0,
      offset: 0,
      length: 0,
      checksumGood: true,
      gsoSize: 0,
    };
    this.engine.incoming = (connection) => {
      this.#connection = connection;
      connection.accept({
        readable: () => {
          this.received += connection.readableBytes;
          connection.consume(connection.readableBytes);
        },
        writable() {},
        closed() {},
      });
    };
    this.#ack = 0;
    this.#send(2, 0);
    this.#seq++;
    this.#ack = (this.output.view.getInt32(this.output.start + 4) + 1) | 0;
    this.#send(ACK, 0);
    this.engine.flush();
  }

  #send(flags: number, length: number): void {
    const view = this.#view;
    view.setUint16(0, 5000);
    view.setUint16(2, 80);
    view.setInt32(4, this.#seq);
    view.setInt32(8, this.#ack);
    view.setUint8(12, HEADER << 2);
    view.setUint8(13, flags);
    view.setUint16(14, 0xffff);
    this.#packet.length = HEADER + length;
    this.engine.receive(this.#packet);
  }

  /** The guest sends segments, as many as come in one turn of the event loop. */
  there(): void {
    for (let i = 0; i < BATCH; i++) {
      this.#send(ACK, PAYLOAD);
      this.#seq = (this.#seq + PAYLOAD) | 0;
    }
    this.engine.flush();
  }

  /** The guest acknowledges what it gets: one of its segments for each of ours. */
  back(): void {
    this.#connection.commit(BATCH * 536);
    this.engine.flush();
    for (let i = 0; i < BATCH; i++) {
      this.#ack = (this.#ack + 536) | 0;
      this.#send(ACK, 0);
      if (i % 8 === 7) this.engine.flush();
    }
  }
}

Deno.test("no object is allocated for a segment of a guest's, and for its acknowledgement", () => {
  const rig = new Rig();
  const bytes = bytesPerRequest({ batch: () => rig.there() }, 8);
  assert(bytes <= LITTLE, `${bytes} bytes for a segment`);
  assert(rig.received >= BATCH * PAYLOAD && rig.received % PAYLOAD === 0);
});

Deno.test("no object is allocated for what is sent to a guest, and for its acknowledgements", () => {
  const rig = new Rig();
  const bytes = bytesPerRequest({ batch: () => rig.back() }, 8);
  assert(bytes <= LITTLE, `${bytes} bytes for a segment`);
  assert(rig.output.bytes >= BATCH * 536, `${rig.output.bytes} bytes were sent`);
});
