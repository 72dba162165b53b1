import { NbdError } from "./nbd_error.ts";
import * as nbd from "./nbd_protocol.ts";
import { type ByteConnection, NbdStream } from "./nbd_stream.ts";

/** What a server tells about an export. */
export interface NbdExport {
  /** Bytes. */
  readonly size: number;
  /** Transmission flags. */
  readonly flags: number;
  /** Requests are multiples of this, at multiples of this. */
  readonly minimumBlock: number;
  /** Bytes of a read or write at most. */
  readonly maximumBlock: number;
  /** Whether reads are answered piece by piece. */
  readonly structured: boolean;
}

/** A server that is ready for requests. */
export interface NbdSession {
  /** What it exports. */
  readonly export: NbdExport;
  /** The connection, encrypted if that was asked for. */
  readonly stream: NbdStream;
}

/** What to ask for. */
export interface HandshakeOptions {
  /** Name of the export. */
  readonly name: string;
  /** Encrypts the connection, if that is wanted. */
  readonly startTls: (() => Promise<ByteConnection>) | null;
  /** Told that writing failed. */
  readonly onError: (error: unknown) => void;
}

/** Replies to one option that a server may send. */
const MOST_REPLIES = 64;
/** Bytes of one reply. */
const MOST_BYTES = 16384;
/** Blocks that a server takes where it does not say. */
const DEFAULT_MAXIMUM = 32 * 2 ** 20;

interface OptionReply {
  readonly type: number;
  readonly data: DataView;
}

/**
 * Greets a server and asks for an export: fixed newstyle, TLS, structured replies, NBD_OPT_GO.
 *
 * @throws {NbdError} If it is no server, an old one, or refuses.
 */
export async function shakeHands(
  connection: ByteConnection,
  options: HandshakeOptions,
): Promise<NbdSession> {
  let stream = new NbdStream(connection, options.onError);
  await greet(stream);
  if (options.startTls !== null) {
    await simpleOption(stream, nbd.NBD_OPT_STARTTLS, "tls");
    if (stream.available > 0) {
      // Sent in clear behind the answer: whoever put it there would speak for the server.
      throw new NbdError("tls", "The server sent something before the connection was encrypted");
    }
    try {
      stream = new NbdStream(await options.startTls(), options.onError);
    } catch (cause) {
      throw new NbdError("tls", `TLS with the server failed: ${(cause as Error).message}`, {
        cause,
      });
    }
  }
  let structured = true;
  try {
    await simpleOption(stream, nbd.NBD_OPT_STRUCTURED_REPLY, "protocol");
  } catch (error) {
    if (!(error instanceof NbdError) || error.code === 0) throw error;
    structured = false;
  }
  return { stream, export: await go(stream, options.name, structured) };
}

async function greet(stream: NbdStream): Promise<void> {
  await stream.need(18);
  const at = stream.take(18);
  const { view } = stream;
  if (
    view.getBigUint64(at) !== nbd.NBD_MAGIC || view.getBigUint64(at + 8) !== nbd.NBD_OPTION_MAGIC
  ) {
    throw new NbdError("protocol", "This is no server of network block devices, or an old one");
  }
  const flags = view.getUint16(at + 16);
  if ((flags & nbd.NBD_FLAG_FIXED_NEWSTYLE) === 0) {
    throw new NbdError("protocol", "The server is too old: it has no fixed newstyle handshake");
  }
  const answer = new Uint8Array(4);
  const noZeroes = flags & nbd.NBD_FLAG_NO_ZEROES;
  new DataView(answer.buffer).setUint32(0, nbd.NBD_FLAG_FIXED_NEWSTYLE | noZeroes);
  stream.write(answer);
}

function sendOption(stream: NbdStream, option: number, data: Uint8Array): void {
  const message = new Uint8Array(16 + data.length);
  const view = new DataView(message.buffer);
  view.setBigUint64(0, nbd.NBD_OPTION_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, data.length);
  message.set(data, 16);
  stream.write(message);
}

async function optionReply(stream: NbdStream, option: number): Promise<OptionReply> {
  await stream.need(20);
  const at = stream.take(20);
  const { view } = stream;
  const type = view.getUint32(at + 12);
  const length = view.getUint32(at + 16);
  if (
    view.getBigUint64(at) !== nbd.NBD_OPTION_REPLY_MAGIC || view.getUint32(at + 8) !== option ||
    length > MOST_BYTES
  ) {
    throw new NbdError("protocol", "The server's answer to an option is malformed");
  }
  const data = new Uint8Array(length);
  await stream.readInto(data);
  return { type, data: new DataView(data.buffer) };
}

/** Throws if a reply is an error. */
function checkReply({ type, data }: OptionReply, problem: "export" | "tls" | "protocol"): void {
  if ((type & nbd.NBD_REP_ERR) === 0) return;
  const code = type & 0x7fff_ffff;
  const why = nbd.OPTION_ERRORS[code] ?? `error ${code}`;
  // deno-lint-ignore no-control-regex
  const text = new TextDecoder().decode(data).replace(/[\x00-\x1f\x7f]+/g, " ").trim();
  throw new NbdError(
    problem,
    `The server refused: ${why}${text === "" ? "" : ` (${text.slice(0, 200)})`}`,
    { code },
  );
}

async function simpleOption(
  stream: NbdStream,
  option: number,
  problem: "tls" | "protocol",
): Promise<void> {
  sendOption(stream, option, new Uint8Array(0));
  const reply = await optionReply(stream, option);
  checkReply(reply, problem);
  if (reply.type !== nbd.NBD_REP_ACK) {
    throw new NbdError("protocol", "The server's answer to an option is malformed");
  }
}

async function go(stream: NbdStream, name: string, structured: boolean): Promise<NbdExport> {
  const text = new TextEncoder().encode(name);
  const data = new Uint8Array(4 + text.length + 4);
  const view = new DataView(data.buffer);
  view.setUint32(0, text.length);
  data.set(text, 4);
  view.setUint16(4 + text.length, 1);
  view.setUint16(6 + text.length, nbd.NBD_INFO_BLOCK_SIZE);
  sendOption(stream, nbd.NBD_OPT_GO, data);
  let size = -1;
  let flags = 0;
  let minimumBlock = 1;
  let maximumBlock = DEFAULT_MAXIMUM;
  for (let replies = 0; replies < MOST_REPLIES; replies++) {
    const reply = await optionReply(stream, nbd.NBD_OPT_GO);
    checkReply(reply, "export");
    if (reply.type === nbd.NBD_REP_ACK) {
      if (size < 0) break;
      return { size, flags, minimumBlock, maximumBlock, structured };
    }
    const { data } = reply;
    if (reply.type !== nbd.NBD_REP_INFO || data.byteLength < 2) break;
    const kind = data.getUint16(0);
    if (kind === nbd.NBD_INFO_EXPORT && data.byteLength === 12) {
      size = Number(data.getBigUint64(2));
      flags = data.getUint16(10);
    } else if (kind === nbd.NBD_INFO_BLOCK_SIZE && data.byteLength === 14) {
      minimumBlock = data.getUint32(2);
      maximumBlock = data.getUint32(10);
    }
  }
  throw new NbdError("protocol", "The server did not tell of the export what it has to");
}

/**
 * Checks what a server told.
 *
 * @throws {NbdError} If it makes no sense, or is more than can be handled.
 */
export function checkExport(info: NbdExport): void {
  const { size, minimumBlock, maximumBlock } = info;
  if (!Number.isSafeInteger(size)) {
    throw new NbdError("export", `The export has ${size} bytes: 2^53 are too many`);
  }
  const powerOfTwo = minimumBlock >= 1 && Math.log2(minimumBlock) % 1 === 0;
  if (!powerOfTwo || minimumBlock > 65536 || maximumBlock < Math.max(minimumBlock, 4096)) {
    throw new NbdError(
      "export",
      `The server wants blocks of ${minimumBlock} to ${maximumBlock} bytes: that cannot be`,
    );
  }
}
