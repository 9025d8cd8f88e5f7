// The record that lies beside each stored file (`format/src/record.rs`). Media whose record is missing or corrupt
// is served to nobody.

import { RECORD_BYTES, VARIANTS } from './limits.js';

/**
 * @typedef {object} Record
 * @property {string} mediaType
 * @property {number} size in bytes
 * @property {bigint} created nanoseconds since 1970
 * @property {'public' | 'private'} access
 * @property {{ id: string, mediaType: string, contentCoding?: string }[]} variants
 */

/**
 * Reads a record as it lies in the store.
 * @param {Uint8Array} json
 * @returns {Record | undefined} nothing where it is corrupt
 */
export function parseRecord(json) {
  const record = parseJson(json);
  if (!isObject(record)) return undefined;
  const { media_type: mediaType, size, access, variants = [] } = record;
  const created = parseRfc3339(record.created);
  if (!isFieldValue(mediaType) || !Number.isSafeInteger(size) || size < 0 || created === undefined)
    return undefined;
  if (access !== 'public' && access !== 'private') return undefined;
  if (!Array.isArray(variants) || variants.length > VARIANTS) return undefined;
  const parsed = variants.map(parseVariant);
  if (parsed.includes(undefined)) return undefined;
  return { mediaType, size, created, access, variants: /** @type {Record['variants']} */ (parsed) };
}

/**
 * Whether a text is a content address: 64 lower-case hexadecimal digits.
 * @param {unknown} text
 * @returns {text is string}
 */
export function isContentId(text) {
  return typeof text === 'string' && /^[0-9a-f]{64}$/.test(text);
}

/** @param {Uint8Array} json */
function parseJson(json) {
  if (json.length > RECORD_BYTES) return undefined;
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json));
  } catch {
    // Neither UTF-8 nor JSON: corrupt, which is all that anybody is told.
    return undefined;
  }
}

/** @param {unknown} value @returns {value is globalThis.Record<string, any>} */
function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether it can stand in a field. @param {unknown} text @returns {text is string} */
function isFieldValue(text) {
  return typeof text === 'string' && /^[\t\x20-\x7e]*$/.test(text);
}

/** @param {unknown} variant */
function parseVariant(variant) {
  if (!isObject(variant)) return undefined;
  const { id, media_type: mediaType } = variant;
  const contentCoding = variant.content_coding ?? undefined;
  if (!isContentId(id) || !isFieldValue(mediaType)) return undefined;
  if (contentCoding !== undefined && !isFieldValue(contentCoding)) return undefined;
  return { id, mediaType, contentCoding };
}

/** @param {unknown} text @returns {bigint | undefined} */
function parseRfc3339(text) {
  const form = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z$/;
  const parts = typeof text === 'string' ? form.exec(text) : null;
  if (!parts) return undefined;
  const [year, month, day, hour, minute, second] = parts.slice(1, 7).map(Number);
  const ms = Date.UTC(year, month - 1, day, hour, minute, second);
  const date = new Date(ms);
  // `Date` carries what is too large over into the next unit.
  const isReal = date.getUTCMonth() === month - 1 && date.getUTCDate() === day && date.getUTCHours() === hour;
  if (year < 1970 || !isReal || minute > 59 || second > 59) return undefined;
  return BigInt(ms) * 1_000_000n + BigInt((parts[7] ?? '').padEnd(9, '0'));
}
