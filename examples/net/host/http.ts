/** HTTP/1.0, as much as `GET` of a file needs. */
import type { Station } from "./station.ts";
import type { StationConnection } from "./connection.ts";

/** Longest request line and headers. */
const HEAD_LIMIT = 8192;
const encoder = new TextEncoder();
const decoder = new TextDecoder("latin1");

/** Serves files on port 80: by path, as long as the map has them. */
export function serveHttp(station: Station, files: ReadonlyMap<string, Uint8Array>): void {
  station.listen(80, (connection) => {
    let head = "";
    let answered = false;
    connection.onData = (data) => {
      if (answered) return;
      head += decoder.decode(data);
      if (head.length > HEAD_LIMIT) return connection.abort();
      if (!/\r?\n\r?\n/.test(head)) return;
      answered = true;
      answer(connection, head, files);
    };
    connection.onEnd = () => connection.end();
  });
}

function answer(
  connection: StationConnection,
  head: string,
  files: ReadonlyMap<string, Uint8Array>,
): void {
  const path = /^GET (?:http:\/\/[^/]+)?(\/\S*) /.exec(head)?.[1];
  const file = path === undefined ? undefined : files.get(path);
  const status = path === undefined ? "400 Bad Request" : file ? "200 OK" : "404 Not Found";
  const length = file?.length ?? 0;
  connection.write(
    encoder.encode(
      `HTTP/1.0 ${status}\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n`,
    ),
  );
  if (file !== undefined) connection.write(file);
  connection.end();
}

/**
 * Fetches a file.
 *
 * @throws {Error} Rejects if there is no answer, another than 200, or less of it than was announced.
 */
export async function fetchHttp(
  station: Station,
  ip: string,
  path: string,
  port = 80,
): Promise<Uint8Array> {
  const connection = await station.connect(ip, port);
  const pieces: Uint8Array[] = [];
  let length = 0;
  connection.onData = (data) => {
    pieces.push(data.slice());
    length += data.length;
  };
  connection.onEnd = () => connection.end();
  connection.write(encoder.encode(`GET ${path} HTTP/1.0\r\nHost: ${ip}\r\n\r\n`));
  await connection.closed;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  const head = /^[^]*?\r?\n\r?\n/.exec(decoder.decode(bytes.subarray(0, HEAD_LIMIT)))?.[0] ?? "";
  if (!/^HTTP\/1\.[01] 200 /.test(head)) {
    throw new Error(`http://${ip}${path} answers: ${head.split("\r\n")[0]}`);
  }
  const body = bytes.subarray(head.length);
  const announced = /^content-length: *(\d+)/im.exec(head)?.[1];
  if (announced !== undefined && Number(announced) !== body.length) {
    throw new Error(`http://${ip}${path} sent ${body.length} of ${announced} bytes`);
  }
  return body;
}
