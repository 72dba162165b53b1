/** What a driver receives, by its modes, its MAC addresses and its VLANs. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import * as net from "../constants.ts";
import { Frame } from "../frame.ts";
import * as ctrl from "./constants.ts";
import { ALL_FEATURES, ControlRig, le16, le32, macTable } from "./testing.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;
const OWN = [2, 0, 0, 0, 0, 1];
const OTHER = [2, 0, 0, 0, 0, 9];
const MULTI = [1, 0, 0x5e, 0, 0, 1];
const BROADCAST = [255, 255, 255, 255, 255, 255];

function rx(command: number, value: number): number[] {
  return [ctrl.VIRTIO_NET_CTRL_RX, command, value];
}
function mac(command: number, ...data: number[]): number[] {
  return [ctrl.VIRTIO_NET_CTRL_MAC, command, ...data];
}
/** Which of own, other unicast, multicast and broadcast get through. */
function seen(rig: ControlRig): string {
  return [OWN, OTHER, MULTI, BROADCAST].map((to) => rig.accepts({ to }) ? "1" : "0").join("");
}

Deno.test("at first a driver with CTRL_RX receives what is for it and broadcasts; one without receives everything", () => {
  assertEquals(seen(new ControlRig()), "1001");
  assertEquals(seen(new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_CTRL_RX)), "1111");
  assertEquals(seen(new ControlRig(0n)), "1111");
});

Deno.test("a driver that chose its own address receives every unicast frame, until it sets one", () => {
  const rig = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_MAC);
  assertEquals(seen(rig), "1101");
  assertEquals(rig.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET, ...OTHER)), OK);
  assertEquals(seen(rig), "0101");
});

Deno.test("every mode, on and off again", () => {
  const rig = new ControlRig();
  const modes: [number, string][] = [
    [ctrl.VIRTIO_NET_CTRL_RX_PROMISC, "1111"],
    [ctrl.VIRTIO_NET_CTRL_RX_ALLMULTI, "1011"],
    [ctrl.VIRTIO_NET_CTRL_RX_ALLUNI, "1101"],
    [ctrl.VIRTIO_NET_CTRL_RX_NOMULTI, "1001"],
    [ctrl.VIRTIO_NET_CTRL_RX_NOUNI, "0001"],
    [ctrl.VIRTIO_NET_CTRL_RX_NOBCAST, "1000"],
  ];
  for (const [command, expected] of modes) {
    assertEquals(rig.ack(rx(command, 1)), OK);
    assertEquals(seen(rig), expected, `command ${command}`);
    assertEquals(rig.ack(rx(command, 0)), OK);
    assertEquals(seen(rig), "1001", `command ${command}, off`);
  }
});

Deno.test("modes together: what is suppressed is, even if all of it is asked for; promiscuous beats everything", () => {
  const rig = new ControlRig();
  for (const [all, none, left] of [[1, 3, "1001"], [2, 4, "0001"], [1, 5, "1010"]] as const) {
    rig.send(rx(all, 1));
    rig.send(rx(none, 1));
    assertEquals(seen(rig), left);
    rig.send(rx(all, 0));
    rig.send(rx(none, 0));
  }
  for (const none of [3, 4, 5]) rig.send(rx(none, 1));
  assertEquals(seen(rig), "0000");
  rig.send(rx(0, 1));
  assertEquals(seen(rig), "1111");
  assertEquals(rig.accepts({ to: OTHER, tags: [7] }), true);
});

Deno.test("modes need their features, one byte of 0 or 1, and a command that there is", () => {
  const rig = new ControlRig();
  for (const data of [[2], [255], [], [1, 0]]) {
    for (const command of [0, 1, 2, 3, 4, 5]) {
      assertEquals(rig.ack([ctrl.VIRTIO_NET_CTRL_RX, command, ...data]), ERR);
    }
  }
  assertEquals(rig.ack(rx(6, 1)), ERR);
  assertEquals(rig.ack(rx(32, 1)), ERR);
  assertEquals(seen(rig), "1001");
  const without = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_CTRL_RX_EXTRA);
  assertEquals([0, 1, 2, 3, 4, 5].map((command) => without.ack(rx(command, 0))), [
    ...[OK, OK],
    ...[ERR, ERR, ERR, ERR],
  ]);
  const extra = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_CTRL_RX);
  assertEquals([0, 1, 2, 3, 4, 5].map((command) => extra.ack(rx(command, 0))), [
    ...[ERR, ERR],
    ...[OK, OK, OK, OK],
  ]);
});

Deno.test("a driver without CTRL_RX can still suppress with CTRL_RX_EXTRA", () => {
  const rig = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_CTRL_RX);
  for (const [command, left] of [[3, "1101"], [4, "0011"], [5, "1110"]] as const) {
    rig.send(rx(command, 1));
    assertEquals(seen(rig), left);
    rig.send(rx(command, 0));
  }
});

Deno.test("setting the own address: the device is told, the old one is not received any more", () => {
  const rig = new ControlRig();
  assertEquals(rig.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET, ...OTHER)), OK);
  assertEquals(rig.host.macs, [OTHER]);
  assertEquals(seen(rig), "0101");
  assertEquals(rig.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET, ...MULTI)), ERR);
  assertEquals(rig.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET, ...OWN.slice(1))), ERR);
  assertEquals(rig.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET, ...OWN, 0)), ERR);
  assertEquals(rig.ack(mac(2, ...OWN)), ERR);
  assertEquals(rig.host.macs, [OTHER]);
  assertEquals(seen(rig), "0101");
  rig.control.reset(ALL_FEATURES);
  assertEquals(seen(rig), "1001");
  const without = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_CTRL_MAC_ADDR);
  assertEquals(without.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET, ...OTHER)), ERR);
  assertEquals(without.host.macs, []);
});

Deno.test("the tables: every address in them is received, a new table takes the place of the old, a reset empties them", () => {
  const rig = new ControlRig();
  const set = (...data: number[]) => rig.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_TABLE_SET, ...data));
  assertEquals(set(...macTable(OTHER, [2, 2, 2, 2, 2, 2]), ...macTable(MULTI)), OK);
  assertEquals(seen(rig), "1111");
  assertEquals(rig.accepts({ to: [2, 2, 2, 2, 2, 2] }), true);
  assertEquals(rig.accepts({ to: [2, 2, 2, 2, 2, 3] }), false);
  assertEquals(rig.accepts({ to: [0, 2, 2, 2, 2, 2] }), false);
  assertEquals(rig.accepts({ to: [1, 0, 0x5e, 0, 0, 2] }), false);
  assertEquals(set(...macTable(), ...macTable(MULTI)), OK);
  assertEquals(seen(rig), "1011");
  rig.control.reset(ALL_FEATURES);
  assertEquals(seen(rig), "1001");
});

Deno.test("bad tables change nothing", () => {
  const rig = new ControlRig();
  const good = [...macTable(OTHER), ...macTable(MULTI)];
  rig.send(mac(ctrl.VIRTIO_NET_CTRL_MAC_TABLE_SET, ...good));
  const bad = [
    [],
    macTable(),
    [...macTable(), 0, 0, 0],
    [...macTable(), ...macTable(), 0],
    [...macTable(MULTI), ...macTable()],
    [...macTable(), ...macTable(OTHER)],
    [...macTable(OTHER).slice(0, -1)],
    [...le32(2), ...OTHER, ...macTable()],
    [...le32(0xffff_ffff), ...OTHER, ...macTable()],
    [...macTable(), ...le32(0x2aaaaaab), ...MULTI],
  ];
  for (const data of bad) {
    assertEquals(rig.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_TABLE_SET, ...data)), ERR, `${data}`);
    assertEquals(seen(rig), "1111");
  }
  const without = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_CTRL_RX);
  assertEquals(without.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_TABLE_SET, ...good)), ERR);
});

Deno.test("a table that does not fit lets all of its kind in, and only of its kind", () => {
  const rig = new ControlRig(ALL_FEATURES, 4, { macEntries: 3 });
  const set = (...data: number[]) => rig.ack(mac(ctrl.VIRTIO_NET_CTRL_MAC_TABLE_SET, ...data));
  const unicast = (count: number) =>
    macTable(...Array.from({ length: count }, (_, i) => [2, 0, 0, 0, 1, i]));
  const multicast = (count: number) =>
    macTable(...Array.from({ length: count }, (_, i) => [3, 0, 0, 0, 1, i]));
  assertEquals(set(...unicast(3), ...multicast(3)), OK);
  assertEquals(seen(rig), "1001");
  assertEquals(set(...unicast(4), ...multicast(3)), OK);
  assertEquals(seen(rig), "1101");
  assertEquals(set(...unicast(3), ...multicast(4)), OK);
  assertEquals(seen(rig), "1011");
  assertEquals(set(...unicast(60), ...multicast(60)), OK);
  assertEquals(seen(rig), "1111");
  assertEquals(rig.ack(rx(ctrl.VIRTIO_NET_CTRL_RX_NOUNI, 1)), OK);
  assertEquals(seen(rig), "0011");
  rig.send(rx(ctrl.VIRTIO_NET_CTRL_RX_NOUNI, 0));
  assertEquals(set(...unicast(0), ...multicast(0)), OK);
  assertEquals(seen(rig), "1001");
});

Deno.test("tables of any addresses: those in them are received, others are not", () => {
  const address = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 6, maxLength: 6 });
  fc.assert(fc.property(
    fc.array(address, { maxLength: 40 }),
    fc.array(address, { maxLength: 40 }),
    fc.array(address, { maxLength: 40 }),
    (unicast, multicast, probes) => {
      const rig = new ControlRig(ALL_FEATURES, 1, { macEntries: 40 });
      unicast.forEach((one) => one[0]! &= 2);
      multicast.forEach((one) => one[0]! |= 1);
      const command = mac(
        ctrl.VIRTIO_NET_CTRL_MAC_TABLE_SET,
        ...macTable(...unicast),
        ...macTable(...multicast),
      );
      assertEquals(rig.ack(command), OK);
      const wanted = new Set([OWN, ...unicast, ...multicast].map(String));
      for (const to of [...unicast, ...multicast, ...probes]) {
        assertEquals(rig.accepts({ to }), wanted.has(String(to)), String(to));
      }
    },
  ));
});

Deno.test("VLANs: only tagged frames are filtered, by the id of the outer tag", () => {
  const rig = new ControlRig();
  const vlan = (command: number, id: number) =>
    rig.ack(ctrl.VIRTIO_NET_CTRL_VLAN, command, le16(id));
  const tagged = (id: number) => rig.accepts({ to: OWN, tags: [id] });
  assertEquals(tagged(7), false);
  assertEquals(rig.accepts({ to: OWN }), true);
  assertEquals(vlan(ctrl.VIRTIO_NET_CTRL_VLAN_ADD, 7), OK);
  assertEquals([tagged(7), tagged(6), tagged(39), tagged(0)], [true, false, false, false]);
  // Priority and drop eligibility are no part of the id.
  assertEquals(tagged(0xf007), true);
  assertEquals(rig.accepts({ to: OTHER, tags: [7] }), false);
  // An outer tag of 802.1ad is not what this table is about.
  assertEquals(rig.accepts({ to: OWN, tags: [100, 200] }), true);
  assertEquals(vlan(ctrl.VIRTIO_NET_CTRL_VLAN_ADD, 4095), OK);
  assertEquals(vlan(ctrl.VIRTIO_NET_CTRL_VLAN_DEL, 7), OK);
  assertEquals([tagged(7), tagged(4095)], [false, true]);
  assertEquals(vlan(ctrl.VIRTIO_NET_CTRL_VLAN_DEL, 8), OK);
  rig.control.reset(ALL_FEATURES);
  assertEquals(tagged(4095), false);
});

Deno.test("bad VLAN commands change nothing; without the feature every tag is accepted", () => {
  const rig = new ControlRig();
  for (
    const bad of [[0, ...le16(4096)], [0, ...le16(0xffff)], [2, ...le16(5)], [0, 5], [0, 5, 0, 0]]
  ) {
    assertEquals(rig.ack(ctrl.VIRTIO_NET_CTRL_VLAN, bad), ERR);
  }
  assertEquals([...Array(4096).keys()].some((id) => rig.accepts({ to: OWN, tags: [id] })), false);
  const without = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_CTRL_VLAN);
  assertEquals(without.accepts({ to: OWN, tags: [7] }), true);
  assertEquals(without.ack(ctrl.VIRTIO_NET_CTRL_VLAN, 0, le16(7)), ERR);
});

Deno.test("frames that are too short for a header are not accepted, whatever the mode", () => {
  const rig = new ControlRig();
  const frame = new Frame();
  for (const promisc of [0, 1]) {
    rig.send(rx(0, promisc));
    for (const length of [0, 6, 13]) {
      assertEquals(rig.control.filter.accepts(frame.fromBytes(new Uint8Array(length))), false);
    }
    const bytes = new Uint8Array(15);
    bytes.set(OWN);
    assertEquals(rig.control.filter.accepts(frame.fromBytes(bytes.subarray(0, 14))), true);
    bytes.set([0x81, 0], 12);
    assertEquals(rig.control.filter.accepts(frame.fromBytes(bytes)), promisc === 1);
  }
});
