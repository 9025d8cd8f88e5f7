// Validation of the guest's response (`host/millpond/src/engine/media/response.rs`).

import { LimitReached } from './guest.js';
import { ITEM_BYTES, LIFTED_BYTES } from './limits.js';
import { FileSlice } from './open-file.js';

/** A guest's response that cannot be sent. */
export class InvalidResponse extends Error {}

/** @typedef {Uint8Array | FileSlice} Part bytes that the guest made, or bytes of a file */

/**
 * A response that can be sent. Its owner disposes of its slices.
 * @typedef {object} Checked
 * @property {number} status
 * @property {string[]} fields names and values by turns, as `writeHead` takes them
 * @property {Part[]} parts
 */

/**
 * Validates a guest's response.
 * @param {import('./guest.js').Response} answer
 * @param {string} method
 * @returns {Checked}
 * @throws {InvalidResponse | LimitReached} no part of the response may be sent then
 */
export function check({ statusCode: status, headers: fields, body }, method) {
  if (status < 200 || status > 599) throw new InvalidResponse(`status ${status} is no final status`);
  checkSize(fields, body);
  const lines = fields.flatMap(([name, value]) => checkField(name, value));
  const parts = body.map(checkPart);
  addLength(
    lines,
    parts.reduce((sum, part) => sum + lengthOf(part), 0),
    status,
    method,
  );
  return { status, fields: lines, parts };
}

/** Length of a part, in bytes. @param {Part} part */
export function lengthOf(part) {
  return part instanceof FileSlice ? part.remaining : part.byteLength;
}

/** @typedef {import('./guest.js').Response} Response */

/**
 * @param {Response['headers']} fields
 * @param {Response['body']} body
 */
function checkSize(fields, body) {
  let bytes = ITEM_BYTES * (fields.length + body.length);
  for (const [name, value] of fields) bytes += name.length + value.length;
  for (const part of body) if (part.tag === 'bytes') bytes += part.val.length;
  if (bytes > LIFTED_BYTES) throw new LimitReached('lifted bytes');
}

/** Fields that belong to one connection (RFC 9110 section 7.6.1). */
const CONNECTION_FIELDS = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/**
 * @param {string} name
 * @param {Uint8Array} bytes
 */
function checkField(name, bytes) {
  if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name)) throw new InvalidResponse('a field name is malformed');
  if (CONNECTION_FIELDS.has(name.toLowerCase()))
    throw new InvalidResponse(`the field ${name} is not the guest's`);
  const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
  if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(value))
    throw new InvalidResponse(`the value of ${name} is malformed`);
  return [name, value];
}

/** @param {Response['body'][number]} part @returns {Part} */
function checkPart(part) {
  if (part.tag === 'bytes') return part.val;
  const { source, length } = part.val;
  const slice = /** @type {unknown} */ (source);
  if (!(slice instanceof FileSlice)) throw new InvalidResponse("a body part is no stream of the store's");
  if (BigInt(slice.remaining) < length)
    throw new InvalidResponse(`a body part has fewer than ${length} bytes`);
  slice.remaining = Number(length);
  return slice;
}

/**
 * Sees to it that `Content-Length` is there and true, wherever status and method allow content (RFC 9110 section 8.6).
 * @param {string[]} lines
 * @param {number} has bytes in all parts
 * @param {number} status
 * @param {string} method
 */
function addLength(lines, has, status, method) {
  const isWithoutContent = status === 204 || status === 304;
  if (isWithoutContent && has > 0) throw new InvalidResponse(`status ${status} allows no content`);
  if (isWithoutContent || (method === 'HEAD' && has === 0)) return;
  const isLength = (/** @type {string} */ name) => name.toLowerCase() === 'content-length';
  const promises = lines.filter((_, index) => index % 2 === 1 && isLength(lines[index - 1]));
  if (promises.length === 0) lines.push('content-length', String(has));
  else if (promises.length > 1 || promises[0] !== String(has)) {
    throw new InvalidResponse(`Content-Length is ${promises} and the body has ${has} bytes`);
  }
}
