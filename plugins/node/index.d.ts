import type { IncomingMessage, ServerResponse } from 'node:http';

/**
 * Makes middleware that serves a folder of media.
 *
 * @param root the folder: files are served by their names, and what `millpond add` put there by its content
 * @throws when the folder cannot be read, or an option cannot be used
 */
export function millpond(root: string, options?: Options): Middleware;
export default millpond;

/** Serves a request: with `next`, only what lies under `/api/media/` and `filesAt`; without it, everything. */
export interface Middleware {
  (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void;
  /** What requests hold right now, and how the ended ones ended. */
  figures(): Figures;
  /** Resolves once nothing is held: no request, no open file, no buffer. */
  idle(): Promise<void>;
}

/** How a request ended. */
export type Outcome = 'completed' | 'aborted' | 'rejected' | 'limited' | 'failed';

export interface Figures extends Record<Outcome, number> {
  /** Files that are open for answers, and for digests that are being computed. */
  openFiles: number;
  /** Requests whose answers have not ended. */
  requestsInFlight: number;
  /** Bytes in buffers between files and sockets, and of answers that the guest made. */
  bytesInBuffers: number;
}

export interface Options extends Settings {
  /** Requests in flight at one time; one more gets 503. 1000. */
  maxRequests?: number;
  /** Milliseconds in which a client has to take 64 KiB of an answer, or it is cut off. 120000. */
  sendTimeoutMs?: number;
  /** The client's address, IPv4 or IPv6 in text: what signatures are bound to. That of the connection. */
  client?: (request: IncomingMessage) => string | undefined;
  /** Gets one line for each request that was cut off, met a limit or failed. Standard error. */
  log?: (line: string) => void;
}

/** How to answer; what is left out has its default. */
export interface Settings {
  /** The path under which named files are served. `/media`. */
  filesAt?: string;
  /** Origins whose pages may read answers, as in `https://a.example`. `'*'`. */
  corsOrigins?: '*' | string[];
  /** Seconds for which a preflight's answer holds. A day. */
  corsMaxAge?: number;
  /** `Timing-Allow-Origin`; empty for no such field. `*`. */
  timingAllowOrigin?: string;
  /** `Cross-Origin-Resource-Policy`; empty for no such field. `cross-origin`. */
  resourcePolicy?: string;
  /** `Content-Security-Policy` of types that a browser runs script in; empty for none. A sandbox. */
  documentPolicy?: string;
  /** `Cache-Control` of media by content. A year, immutable. */
  cacheContent?: string;
  /** `Cache-Control` of named files. `public, no-cache`. */
  cacheFiles?: string;
  /** Seconds for which it holds that there is no such media. 5. */
  cacheMissing?: number;
  /** Keys of signed URLs by their ids: 16 bytes or more in hexadecimal. None. */
  signingKeys?: Record<string, string>;
}
