// Serves `GET /media/<name>`: whole files, single ranges and conditional requests. Change it as you like. The interface
// is in wit/, with a description of each part.

import { get } from 'millpond:media/settings@0.2.0';
import { open } from 'millpond:media/media-store@0.2.0';

/** Export of the world `media-guest`: one function, called once for each request, in an instance of its own. */
export const mediaServe = {
  /** `request` has `method`, `pathWithQuery`, `headers`, `received`, `random` and perhaps `client`. */
  handle(request) {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return failure(request, 405, 'Method not allowed', { allow: 'GET, HEAD' });
    }
    const name = nameIn(request.pathWithQuery);
    const object = name && find(name);
    if (!object) return failure(request, 404, 'Media not found');
    return withContent(request, object);
  },
};

/** Responds with the object: 200, 206, 304 or 416 (RFC 9110 sections 13 and 14). */
function withContent(request, object) {
  // Metadata of the file. `length` and the times are of the type BigInt: 1n, not 1.
  const { length, mediaType, version } = object.info();
  const etag = version && { isWeak: version.tag === 'weak', quoted: `"${version.val}"` };
  const validators = etag ? { etag: (etag.isWeak ? 'W/' : '') + etag.quoted } : {};
  if (etag && isCached(header(request, 'if-none-match'), etag)) return response(304, validators, []);

  const headers = { ...validators, 'content-type': mediaType, 'accept-ranges': 'bytes' };
  const range = rangeOf(request, etag, length);
  if (range === 'unsatisfiable') {
    return failure(request, 416, 'Range not satisfiable', { 'content-range': `bytes */${length}` });
  }
  if (!range) return response(200, headers, bodyOf(request, object, 0n, length), length);
  const { first, last } = range;
  headers['content-range'] = `bytes ${first}-${last}/${length}`;
  const count = last - first + 1n;
  return response(206, headers, bodyOf(request, object, first, count), count);
}

/** The body: no bytes, but a stream that the host sends after this instance is gone. */
function bodyOf(request, object, offset, length) {
  if (request.method === 'HEAD' || length === 0n) return [];
  return [{ tag: 'stream', val: { source: object.read(offset, length), length } }];
}

/** Whether `If-None-Match` lists the current entity tag, by the weak comparison (RFC 9110 section 13.1.2). */
function isCached(value, etag) {
  if (value === undefined) return false;
  return value.trim() === '*' || (value.match(/"[^"]*"/g) ?? []).includes(etag.quoted);
}

/**
 * The single range that a request selects; nothing for the whole. A range of several is ignored, as RFC 9110 section 14.2
 * allows.
 */
function rangeOf(request, etag, length) {
  const value = header(request, 'range');
  if (request.method !== 'GET' || value === undefined || !/^bytes=/i.test(value)) return undefined;
  // `If-Range` needs a strong match (RFC 9110 section 13.1.5).
  const condition = header(request, 'if-range');
  if (condition !== undefined && (!etag || etag.isWeak || condition !== etag.quoted)) return undefined;
  if (value.includes(',') || length === 0n) return undefined;
  const parts = /^bytes= *(\d*)-(\d*) *$/i.exec(value);
  if (!parts || (!parts[1] && !parts[2])) return 'unsatisfiable';
  const end = length - 1n;
  let [first, last] = [BigInt(parts[1] || 0), parts[2] ? BigInt(parts[2]) : end];
  if (!parts[1]) [first, last] = last === 0n ? [length, end] : [last < length ? length - last : 0n, end];
  if (first > last || first >= length) return 'unsatisfiable';
  return { first, last: last < end ? last : end };
}

/** The value of a request header; the values of several lines are joined, as RFC 9110 section 5.3 has it. */
function header(request, wanted) {
  const lines = request.headers.filter(([name]) => name === wanted);
  if (lines.length === 0) return undefined;
  return lines.map(([, value]) => new TextDecoder('latin1').decode(value)).join(', ');
}

/** The name in a target such as `/media/a%20b.gif?v=1`; nothing for another path, or if it cannot be decoded. */
function nameIn(target) {
  const mountPath = get().mountPath ?? '/media';
  const [path] = target.split('?', 1);
  const prefix = mountPath === '/' ? '/' : `${mountPath}/`;
  if (!path.startsWith(prefix)) return undefined;
  try {
    return decodeURIComponent(path.slice(prefix.length));
  } catch {
    return undefined;
  }
}

/** The file of a name; nothing if there is none. The host opens no file outside its folder. */
function find(name) {
  try {
    return open({ tag: 'named', val: name });
  } catch (error) {
    // An error of the interface is thrown, with the error code as its payload.
    if (error.payload?.tag === 'not-found') return undefined;
    throw error;
  }
}

/** An error in JSON. */
function failure(request, status, message, headers = {}) {
  const json = bytes(JSON.stringify({ error: message }));
  const all = { ...headers, 'content-type': 'application/json', 'cache-control': 'no-store' };
  return response(status, all, request.method === 'HEAD' ? [] : [{ tag: 'bytes', val: json }], json.length);
}

/** Header values are bytes, as on the wire. `length` is that of the content, also in a response to `HEAD`. */
function response(statusCode, headers, body, length) {
  const all = length === undefined ? headers : { ...headers, 'content-length': String(length) };
  return { statusCode, headers: Object.entries(all).map(([name, value]) => [name, bytes(value)]), body };
}

function bytes(text) {
  return new TextEncoder().encode(text);
}
