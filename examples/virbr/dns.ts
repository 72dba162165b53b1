/** As much of DNS as a question for an address, and its answer, need (RFC 1035, 4.1). */
const decoder = new TextDecoder("latin1");
const encoder = new TextEncoder();
const HEADER_SIZE = 12;
const TYPE_A = 1;
const ANSWER_SIZE = 16;

/** A question for the IPv4 address of a name. */
export function addressQuestion(id: number, name: string): Uint8Array {
  const labels = name.split(".").flatMap((label) => [label.length, ...encoder.encode(label)]);
  return Uint8Array.from([
    ...[id >> 8, id & 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    ...[...labels, 0, 0, TYPE_A, 0, 1],
  ]);
}

/** The name that a message asks for, its type, and where the question ends; null if it is none. */
function readQuestion(message: Uint8Array): { name: string; type: number; end: number } | null {
  const labels: string[] = [];
  let at = HEADER_SIZE;
  for (let length; (length = message[at] ?? 0xff) !== 0; at += 1 + length) {
    if (length > 63 || at + length >= message.length) return null;
    labels.push(decoder.decode(message.subarray(at + 1, at + 1 + length)).toLowerCase());
  }
  if (at + 5 > message.length) return null;
  return { name: labels.join("."), type: message[at + 1]! << 8 | message[at + 2]!, end: at + 5 };
}

/** Answers a question from a table of names; what is not there does not exist. Null if it is no question. */
export function answer(
  question: Uint8Array,
  names: ReadonlyMap<string, readonly number[]>,
): Uint8Array | null {
  const asked = readQuestion(question);
  if (asked === null || (question[2]! & 0x80) !== 0) return null;
  const address = names.get(asked.name);
  const found = address !== undefined && asked.type === TYPE_A;
  const message = new Uint8Array(asked.end + (found ? ANSWER_SIZE : 0));
  message.set(question.subarray(0, asked.end));
  // A response that has recursion; NXDOMAIN where nobody knows the name.
  message.set([0x81, address === undefined ? 0x83 : 0x80, 0, 1, 0, found ? 1 : 0, 0, 0, 0, 0], 2);
  if (found) {
    message.set([0xc0, HEADER_SIZE, 0, TYPE_A, 0, 1, 0, 0, 0, 60, 0, 4, ...address], asked.end);
  }
  return message;
}

/** The addresses in an answer, as text; null if it is not the answer to this question. */
export function readAddresses(message: Uint8Array, id: number): string[] | null {
  const asked = readQuestion(message);
  if (asked === null || (message[0]! << 8 | message[1]!) !== id) return null;
  const found: string[] = [];
  let at = asked.end;
  for (let left = message[6]! << 8 | message[7]!; left > 0; left--) {
    // Labels, and then a zero or a pointer to more of them.
    while (message[at]! > 0 && message[at]! < 0xc0) at += 1 + message[at]!;
    at += message[at] === 0 ? 1 : 2;
    if (at + 10 > message.length) break;
    const length = message[at + 8]! << 8 | message[at + 9]!;
    if (message[at + 1] === TYPE_A) found.push(message.subarray(at + 10, at + 14).join("."));
    at += 10 + length;
  }
  return found;
}
