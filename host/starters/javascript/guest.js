// Answers `GET /media/<name>` with the whole file of that name. It is a start: ranges, conditions, caching and whatever
// else the answers shall have is yours to decide here. The interface is in wit/, which says what each part means.

import { get } from 'wasi:config/store@0.2.0-rc.1';
import { open } from 'millpond:media/media-store@0.1.0';

/** What the world `media-guest` exports: one function, called once for each request, in an instance of its own. */
export const mediaServe = {
  /** `request` has `method`, `target`, `fields`, `received`, `nonce` and perhaps `client`. */
  handle(request) {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return failure(405, 'Method not allowed', { allow: 'GET, HEAD' });
    }
    const name = nameIn(request.target);
    const object = name && find(name);
    if (!object) return failure(404, 'Media not found');

    // What the host knows of the file. `length` and the times are of the type BigInt: 1n, not 1.
    const { length, mediaType } = object.info();
    const body = [];
    if (request.method === 'GET') {
      // The bytes never come here: the answer names a stream, and the host sends it once this instance is gone.
      body.push({ tag: 'stream', val: { source: object.read(0n, length), length } });
    }
    return answer(200, { 'content-type': mediaType, 'content-length': String(length) }, body);
  },
};

/** The name in a target such as `/media/a%20b.gif?v=1`; nothing where it is another path, or cannot be decoded. */
function nameIn(target) {
  const filesAt = get('files-at') ?? '/media';
  const [path] = target.split('?', 1);
  const prefix = filesAt === '/' ? '/' : `${filesAt}/`;
  if (!path.startsWith(prefix)) return undefined;
  try {
    return decodeURIComponent(path.slice(prefix.length));
  } catch {
    return undefined;
  }
}

/** The file of that name; nothing where there is none. The host looks in its folder only, whatever the name. */
function find(name) {
  try {
    return open({ tag: 'named', val: name });
  } catch (error) {
    // `result<object, error>` of the interface: what is no object is thrown, with the error as its payload.
    if (error.payload === 'not-found') return undefined;
    throw error;
  }
}

/** An error, in JSON. */
function failure(status, message, fields = {}) {
  const json = bytes(JSON.stringify({ error: message }));
  const named = { ...fields, 'content-type': 'application/json', 'cache-control': 'no-store' };
  return answer(status, named, [{ tag: 'bytes', val: json }]);
}

/** Field values are bytes, as they are on the wire. */
function answer(status, fields, body) {
  return { status, fields: Object.entries(fields).map(([name, value]) => [name, bytes(value)]), body };
}

function bytes(text) {
  return new TextEncoder().encode(text);
}
