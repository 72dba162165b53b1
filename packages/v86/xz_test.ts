import { assertEquals, assertThrows } from "@std/assert";
import { crc32, unxz, XzError } from "./xz.ts";

/** 1,200 bytes of what machine code is not: one branch opcode over the other, packed with the x86 filter. */
const CODE_XZ =
  "/Td6WFoAAAFpIt42AgEEACEBCADSuXTL4ASvA3FdAGm/1s5Wt23WVmRifaq/YfiE1zEBOYon1kUdhc2znBVfO0qIQolt" +
  "h2CIwg2o76PoAvosze9j3FKpYBXM76Yc+mNocOrCUM3v2eHRPhNM+XYmKGdGNE0Y02tMnJm0oh58XhBuCWljckgWiaGL" +
  "PU6TiMfVUMO+Qx948vd3IpJV9IEddN/SRcMrc/Xzfu6A6dZj0VwlboRCRNI7J1dYxHnj8RgBivgiPnh6wjelKb1DTiiv" +
  "TWsCJ+/aGNxQ/TOqv9d+mFuy/UY3hRSVPsVvq7fK1tgYYwPMaLvHb+PQJB4va4Z2oO3hxBKFJTiG1kmsJluGfn84ewnd" +
  "lBtt8YDQ1+50ijUSqVSzUEaxrXJTv+f25+sVFiZ9WPnLSIOP6lx/Y12C3zxtXolXlXH1tZli3mQEpJV1mRNSzCqZpfYQ" +
  "BatwnMGExJtkCII/QKrpQZyqWngZsld5ImndAm/tfZkVPvfBOcu9+hX2uwGPSVtlA5GBvvRGFLodD18dTfFnG+sTGvzx" +
  "E8tGFol4nlffyus6o7YJS35XSXUefwoBvZ//OFSMpQM0SoaFop4STGEQ5g5vQluEbjXeVnfyjYgQpnhe2zd9912Y+cph" +
  "5P3KKsLGSzUQhyzbtaEqVaCdiY9IJs+E8y02/mdBnlvP9l9HexvQnmoqaRr04BXbDWxF5P85y8G+FTsobSiQqkZntCox" +
  "QDQugzfsrWMzylVWOQwwHOP4br5yAvDDAvFeZK8BB391QHxyrNcdx28MAPcNOu8IGqJBevKyMjIV14NywrCDmt1vIB5m" +
  "KN+8Ot9DapnV3cRV5njTL1ssXPuwr3MJhx1Sfd9SBZLduwGahlbneSim+aABESgpQ+iSYwTiIZpJ+biWpNgFF3qKXlni" +
  "P13mb0s6Esh1BH63YmPWF3xML502V29Ecpjco5cQ9h3wbMsuz2BE0K2Nb9OQqcMQOM8XVeIHP20xrEYXMSM+71kojyiF" +
  "ZOZb78DsLYPfhJoNNh/Bdz+3LI+kwaBDIsMg9AbDCD1fm8i7WHMWW1/tA3Y4SAKrxX5fDFLIjDpfDcAEWAuy2EzsReWD" +
  "8uUhXwAgo/fRrnDbl6AeTux7Qphx4PNqYSrglSxgDSzmYxlkSnk5iqPQ1lL9xd6H/m7E0x3zFQeS+dM0AK2aWPnahZpN" +
  "By7A5crUPUAJel6rjbsAAAAAACfSSo0AAYkHsAkAAMg4aVo+MA2LAgAAAAABWVo=";

/** Lines of text, packed with other parameters than usual. */
const TEXT_XZ =
  "/Td6WFoAAATm1rRGAgAhAQAAAAA3J5fW4BFlAgsEADYbHXYTSXVq223JULrinqFRKAck5l+zW+uUTO8IxF7xHWNK54CH" +
  "ZCwLP3O3eEDaPHAm9qfDVZxBV9XtVXWyeF7dZ6keX7uTd7Oo9og2M/uDz9o2IfClL8wO0IxIflIBy9Sh+tkGyAtVLHn+" +
  "JZE8tLps7Scbymfa+7OhlnP4fQ2KiOi6Ix3wN/xjH/JboKhkth6xMX+js/VMJEBAh+fmZ/Dp7yaPfgHtoMQ3qJKBqCRE" +
  "WdODx2wFZl1qR8HO3wDysmYg8JK3HjnVQOz0/j+ooHpyhAb3a8E8Zfvv/5QX32SxS8TcY9qRmYNjFAtxUR9OGPknncSl" +
  "bzaBVn47D03kY57JGmEtDf8Pc+ckDxcNw4MfakmiMwPWNgkTyu4PEbFFVLuu0Whymn+rOYaN/Ia7xn+FYUSe3bEnnieR" +
  "mgryRAHyScecx3P/fn+AGEsnN6RqgUZ6MhS1SRepesasO3IhAA96K2SpLV/mcZLxfoieL5oZyfMnQT9eldAYWLXEFv5h" +
  "1Uy/6CJWdUMJTmmDI2c1xutl25W0jLGM1cVEkRYz+O5LtiNGie4aKf8bvO7Iiem1eBDp8N6U7WmjO2vADm/MDR+dW6Yf" +
  "B0KX0ZS/BW8hRORfjMkKOCvbin8eGvRFwwD5HePIVN2V3fHZppEe1P/DIHYW2g50COQg5Jm6awD/E/hL5c/4WCOM49Sh" +
  "7wAAANKQpDPb69vRAAGnBOYiAAAh3xH6scRn+wIAAAAABFla";

function bytes(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function code(): Uint8Array {
  let x = 12345;
  return Uint8Array.from({ length: 1200 }, () => {
    x = Math.imul(x, 1103515245) + 12345 >>> 0;
    const r = x >>> 24;
    return r < 60 ? 0xe8 : r < 80 ? 0xe9 : r < 140 ? 0 : r < 200 ? 0xff : r;
  });
}

const TEXT = new TextEncoder().encode(
  Array.from({ length: 200 }, (_, i) => `line ${i * i} of the text\n`).join(""),
);

Deno.test("unxz undoes LZMA2 and the x86 branch filter", () => {
  assertEquals(unxz(bytes(CODE_XZ), 1200), code());
  assertEquals(unxz(bytes(TEXT_XZ), TEXT.length), TEXT);
});

Deno.test("CRC-32 is that of IEEE 802.3", () => {
  assertEquals(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});

Deno.test("unxz refuses another length than announced", () => {
  assertThrows(() => unxz(bytes(TEXT_XZ), TEXT.length - 1), XzError, "longer");
  assertThrows(() => unxz(bytes(TEXT_XZ), TEXT.length + 1), XzError, "announced");
});

Deno.test("damaged .xz data gives an error or, where nothing checks it, bytes: never a hang or another exception", () => {
  const good = bytes(CODE_XZ);
  let refused = 0;
  for (let at = 0; at < good.length; at++) {
    const bad = good.slice();
    bad[at]! ^= 1 << at % 8;
    try {
      unxz(bad, 1200);
    } catch (error) {
      if (!(error instanceof XzError)) throw error;
      refused++;
    }
  }
  // Everything before the index is covered by a checksum.
  assertEquals(refused >= good.length - 40, true, `${refused} of ${good.length} refused`);
  for (let length = 0; length < good.length - 40; length++) {
    assertThrows(() => unxz(good.subarray(0, length), 1200), XzError);
  }
});
