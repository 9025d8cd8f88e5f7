import type { IncomingMessage, ServerResponse } from 'node:http';

/**
 * Makes middleware that serves a folder of media.
 *
 * @param root the folder: files are served by their names, and what `millpond add` put there by its content
 * @throws when the folder cannot be read, or an option cannot be used
 */
export function millpond(root: string, options?: Options): Middleware;
export default millpond;

/** Serves a request: with `next`, only what lies under `/api/media/` and `mountPath`; without it, everything. */
export interface Middleware {
  (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void;
  /** Resources that requests hold, and outcomes of ended requests. */
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

/** Settings of the guest. Each has a default. */
export interface Settings {
  /** Path under which named files are served. Default: `/media`. */
  mountPath?: string;
  /** Origins whose pages may read responses, as in `https://a.example`. Default: `'*'`. */
  corsOrigins?: '*' | string[];
  /** Lifetime of a preflight response, in seconds. Default: a day. */
  corsMaxAge?: number;
  /** `Timing-Allow-Origin`; empty to omit it. Default: `*`. */
  timingAllowOrigin?: string;
  /** `Cross-Origin-Resource-Policy`; empty to omit it. Default: `cross-origin`. */
  crossOriginResourcePolicy?: string;
  /** `Content-Security-Policy` of types that can run scripts; empty to omit it. Default: a sandbox. */
  contentSecurityPolicy?: string;
  /** `Cache-Control` of media by content id. Default: a year, immutable. */
  cacheContent?: string;
  /** `Cache-Control` of named files. Default: `public, no-cache`. */
  cacheFiles?: string;
  /** Lifetime of the response that media does not exist, in seconds. Default: 5. */
  negativeTtl?: number;
  /** Whether folders are listed: as pages for browsers, and in JSON for others. Default: true. */
  browse?: boolean;
  /** Keys that sign URLs, by id: at least 16 bytes in hexadecimal. Default: none. */
  signingKeys?: Record<string, string>;
}
