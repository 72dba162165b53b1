/** A guest that changes its MAC address for a long time. */
import { changeMac } from "../../packages/virbr/dhcp/client_testing.ts";

Deno.test("10,000 MAC addresses of one guest get the leases of one port", () => {
  changeMac(10_000);
});
