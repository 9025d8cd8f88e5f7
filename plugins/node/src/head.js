// A request's head: whether it is one that gets an answer (`host/server/src/http1/head.rs`), and how the guest is given it.

import { CONTENT_BYTES, FIELDS_BYTES, FIELD_LINES, TARGET_BYTES } from './limits.js';

/** Why a request gets no answer of the guest's: what its client is told. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @typedef {import('../dist/interfaces/millpond-media-media-serve.js').Header} Header */

/**
 * The target in origin-form, or `*` (RFC 9112 section 3.2): what stands in front of the path is no matter here.
 * @param {string} url
 */
export function originForm(url) {
  const authority = /^https?:\/\/[^/?#]*/i.exec(url)?.[0];
  if (authority === undefined) return url;
  const rest = url.slice(authority.length);
  return rest.startsWith('/') ? rest : `/${rest}`;
}

/**
 * A target as it is logged: without what would let a reader of the log in, such as a signature or a password. The same
 * as in `host/ledger/src/access_log.rs`.
 * @param {string} url
 */
export function logged(url) {
  const secret = /([?&](?:sig|[^?&=]*(?:signature|token|password|secret))=)[^&]+/gi;
  return url.replace(/^(\w+:\/\/)[^/?#]*@/, '$1[redacted]@').replace(secret, '$1[redacted]');
}

/**
 * Reads a head.
 * @param {import('node:http').IncomingMessage} request
 * @returns {{ method: string, pathWithQuery: string, headers: Header[] }}
 * @throws {Refused}
 */
export function readHead(request) {
  const { method = '', url = '', rawHeaders } = request;
  const target = originForm(url);
  if (target.length > TARGET_BYTES) throw new Refused(414, 'Target too long');
  const bytes = rawHeaders.reduce((sum, text) => sum + text.length, 0);
  if (bytes > FIELDS_BYTES || rawHeaders.length > 2 * FIELD_LINES)
    throw new Refused(431, 'Header fields too large');
  checkHost(request);
  checkTarget(method, url);
  checkExpectation(request);
  if (Number(request.headers['content-length'] ?? 0) > CONTENT_BYTES)
    throw new Refused(413, 'Content too large');
  return { method, pathWithQuery: utf8(target), headers: headersOf(rawHeaders) };
}

/**
 * Whether content follows, which is not read here.
 * @param {import('node:http').IncomingMessage} request
 */
export function hasContent({ headers }) {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/**
 * The field lines in the order they came, their names in lower case. Node gives a byte as the character of its number.
 * @param {string[]} rawHeaders
 */
function headersOf(rawHeaders) {
  /** @type {Header[]} */
  const fields = [];
  for (let index = 0; index < rawHeaders.length; index += 2) {
    fields.push([rawHeaders[index].toLowerCase(), Buffer.from(rawHeaders[index + 1], 'latin1')]);
  }
  return fields;
}

/** One `Host` that names a host, which only HTTP/1.0 may leave out. @param {import('node:http').IncomingMessage} request */
function checkHost({ rawHeaders, httpVersionMajor, httpVersionMinor }) {
  const hosts = rawHeaders.filter(
    (_, index) => index % 2 === 1 && rawHeaders[index - 1].toLowerCase() === 'host',
  );
  const isOld = httpVersionMajor === 1 && httpVersionMinor === 0;
  const isFit = hosts.length === 1 ? isHost(hosts[0]) : hosts.length === 0 && (isOld || httpVersionMajor > 1);
  if (!isFit) throw new Refused(400, 'Missing or invalid Host field');
}

/** Whether it is `uri-host [ ":" port ]` (RFC 9110 section 7.2), and the host not empty. @param {string} text */
function isHost(text) {
  const parts = /^(\[[0-9a-f:.]+\]|[\w.~!$&'()*+,;=%-]+)(?::(\d*))?$/i.exec(text);
  // A comma makes two of one where somebody puts lines together.
  return parts !== null && !parts[1].includes(',') && Number(parts[2] ?? 0) <= 65_535;
}

/**
 * The forms of RFC 9112 section 3.2: origin-form, absolute-form, and `*` for `OPTIONS`.
 * @param {string} method
 * @param {string} url
 */
function checkTarget(method, url) {
  if (url.includes('#')) throw new Refused(400, 'Malformed request');
  const isAsterisk = url === '*' && method === 'OPTIONS';
  const isAbsolute = /^https?:\/\/[^/?@]+(?=[/?]|$)/i.test(url);
  if (!isAsterisk && !isAbsolute && !url.startsWith('/')) throw new Refused(400, 'Invalid request target');
}

/** `100-continue` is the only expectation there is. @param {import('node:http').IncomingMessage} request */
function checkExpectation({ headers }) {
  const { expect } = headers;
  if (expect !== undefined && expect.toLowerCase() !== '100-continue')
    throw new Refused(417, 'Unknown expectation');
}

/** @param {string} latin1 */
function utf8(latin1) {
  if (!/[\x80-\xff]/.test(latin1)) return latin1;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(latin1, 'latin1'));
  } catch {
    throw new Refused(400, 'Invalid request target');
  }
}
