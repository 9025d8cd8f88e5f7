// `media-store` over a folder (`host/millpond/src/store/folder.rs`): opens what a key names, and nothing outside the folder.
//
// The guest calls this from WebAssembly, which waits for the answer: so these calls are the blocking ones, each of
// which takes microseconds where the file system has the folder's entries in memory. No media byte is read here.

import fs from 'node:fs';
import { Digests, objectVersionOf, versionOf } from './digests.js';
import { LINKS, RECORD_BYTES, SMALL_BYTES, TEXT_BYTES } from './limits.js';
import { mediaTypeOf, withCharset } from './media-types.js';
import { kindOf, MAX_READ, PageSelector } from './listing.js';
import { FileSlice, OpenFile } from './open-file.js';
import { isContentId, parseRecord } from './record.js';

/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').Key} Key */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').Info} Info */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').Listing} Listing */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').ListQuery} ListQuery */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').VariantInfo} VariantInfo */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').Entry} Entry */

/** A failed call of the store: `error-code` and `read-error` of `wit/media-store.wit`. */
export class StoreError extends Error {
  /**
   * @param {'not-found' | 'busy' | 'io' | 'out-of-bounds'} code
   * @param {unknown} [cause]
   */
  constructor(code, cause) {
    super(`store error: ${code}`, { cause });
    /** Value that the transpiled guest gets. */
    this.payload = { tag: code };
  }
}

/** A folder of media. */
export class Folder {
  #root;
  #accounts;
  #digests;

  /**
   * @param {string} path
   * @param {import('./accounts.js').Accounts} accounts
   * @throws when there is no such folder, or it cannot be read
   */
  constructor(path, accounts) {
    this.#root = fs.realpathSync.native(path);
    fs.opendirSync(this.#root).closeSync();
    this.#accounts = accounts;
    this.#digests = new Digests(accounts);
  }

  /**
   * Opens an object.
   * @param {Key} key
   * @returns {MediaObject}
   * @throws {StoreError}
   */
  open(key) {
    return key.tag === 'content' ? this.#openContent(key.val) : this.#openNamed(key.val);
  }

  /**
   * Lists a folder, page by page.
   * @param {string} folder path from the root; empty for the root
   * @param {ListQuery} query
   * @returns {Listing}
   * @throws {StoreError}
   */
  list(folder, query) {
    if (folder !== '' && !isServedByName(folder)) throw new StoreError('not-found');
    const selector = new PageSelector(query);
    const directory = this.#openFolder(folder);
    try {
      if (query.max === 0) return selector.listing();
      let count = 0;
      for (let found; (found = directory.readSync()) !== null;) {
        if (++count > MAX_READ)
          throw new StoreError('io', new Error(`a folder has more than ${MAX_READ} entries`));
        const { name } = found;
        const path = folder === '' ? name : `${folder}/${name}`;
        // A name that is not UTF-8 has been replaced in part, and would lead nowhere.
        if (name.includes('\ufffd') || !selector.matches(name) || !isServedByName(path)) continue;
        const isKnown = !selector.needsMetadata && (found.isDirectory() || found.isFile());
        const entry = isKnown ? { name, kind: kindOf(found.isDirectory()) } : this.#entryOf(name, path);
        if (entry === undefined) continue;
        if (entry.kind.tag === 'folder' && this.#hasContent(name, path)) continue;
        selector.offer(entry);
      }
    } catch (error) {
      throw storeErrorOf(error);
    } finally {
      directory.closeSync();
    }
    const listing = selector.listing();
    listing.entries = listing.entries.map(
      (entry) => this.#entryOf(entry.name, folder === '' ? entry.name : `${folder}/${entry.name}`) ?? entry,
    );
    return listing;
  }

  /** @param {string} folder */
  #openFolder(folder) {
    const path = folder === '' ? this.#root : this.#resolve(folder);
    if (path === undefined) throw new StoreError('not-found');
    try {
      return fs.opendirSync(path);
    } catch (error) {
      throw storeErrorOf(error);
    }
  }

  /**
   * An entry with its metadata; nothing for what is neither a file nor a folder.
   * @param {string} name
   * @param {string} path from the root
   * @returns {Entry | undefined}
   */
  #entryOf(name, path) {
    const resolved = this.#resolve(path);
    const stat = resolved && fs.lstatSync(resolved, { bigint: true, throwIfNoEntry: false });
    if (!stat || !(stat.isDirectory() || stat.isFile())) return undefined;
    const modified = stat.mtimeNs > 0n ? stat.mtimeNs : 0n;
    return { name, modified, kind: kindOf(stat.isDirectory(), stat.size, mediaTypeOf(name)) };
  }

  /**
   * Whether a folder belongs to the content store, by its name and its first entries.
   * @param {string} name
   * @param {string} path from the root
   */
  #hasContent(name, path) {
    if (!/^[0-9a-f]{2}$/.test(name)) return false;
    try {
      const directory = this.#openFolder(path);
      try {
        for (let count = 0; count < 4; count += 1) {
          const file = directory.readSync()?.name.slice(0, 64);
          if (file !== undefined && isContentId(file) && file.startsWith(name)) return true;
        }
      } finally {
        directory.closeSync();
      }
    } catch {
      // A folder that cannot be read is listed as a folder.
    }
    return false;
  }

  /** @param {string} id */
  #openContent(id) {
    if (!isContentId(id)) throw new StoreError('not-found');
    const path = `${id.slice(0, 2)}/${id}`;
    const record = parseRecord(this.#readRecord(`${path}.json`));
    if (!record) throw new StoreError('not-found');
    const opened = this.#openFile(path);
    if (opened.length !== record.size) {
      opened.file.release();
      throw new StoreError('not-found');
    }
    const { mediaType, created, access } = record;
    const { modified } = opened;
    /** @type {Info} */
    const info = {
      length: BigInt(record.size),
      mediaType,
      modified,
      created,
      digest: id,
      version: undefined,
      access,
    };
    return new MediaObject(opened.file, info, () =>
      record.variants.map(({ id, ...variant }) => ({ key: { tag: 'content', val: id }, ...variant })),
    );
  }

  /** @param {string} name */
  #openNamed(name) {
    if (!isServedByName(name)) throw new StoreError('not-found');
    const { file, length, modified, version } = this.#openFile(name);
    const mediaType = this.#mediaTypeOf(name, file);
    const digest = this.#digestOf(file, version);
    /** @type {Info} */
    const info = {
      length: BigInt(length),
      mediaType,
      modified,
      created: undefined,
      digest,
      version: objectVersionOf(version, length <= SMALL_BYTES ? digest : undefined),
      access: 'public',
    };
    return new MediaObject(file, info, () => this.#siblings(name, mediaType));
  }

  /**
   * @param {OpenFile} file
   * @param {import('./digests.js').FileVersion} version
   */
  #digestOf(file, version) {
    try {
      return this.#digests.of(file, version);
    } catch (error) {
      file.release();
      throw storeErrorOf(error);
    }
  }

  /**
   * The files beside a named one that hold the same in another form: `logo.svg.br` of `logo.svg`, `pond.png.avif` of
   * `pond.png`.
   * @param {string} name
   * @param {string} mediaType
   * @returns {VariantInfo[]}
   */
  #siblings(name, mediaType) {
    const hasCodings = isCompressible(mediaType) && !/\.svgz$/i.test(name);
    const candidates = hasCodings ? CODINGS : (FORMATS.get(mediaType) ?? []);
    return candidates
      .filter(({ suffix }) => this.#isFile(`${name}.${suffix}`))
      .map(({ suffix, ofType, contentCoding }) => ({
        key: { tag: 'named', val: `${name}.${suffix}` },
        mediaType: ofType ?? mediaType,
        contentCoding,
      }));
  }

  /** @param {string} name */
  #isFile(name) {
    const path = this.#resolve(name);
    return path !== undefined && fs.lstatSync(path, { throwIfNoEntry: false })?.isFile() === true;
  }

  /** @param {string} name @param {OpenFile} file */
  #mediaTypeOf(name, file) {
    try {
      const readBeginning = () => beginningOf(file, Math.min(file.length, TEXT_BYTES));
      return withCharset(mediaTypeOf(name), file.length, readBeginning);
    } catch (error) {
      file.release();
      throw storeErrorOf(error);
    }
  }

  /** The beginning of a record; one that is longer than a record may be is cut, and then no record. @param {string} name */
  #readRecord(name) {
    const { file } = this.#openFile(name);
    try {
      return beginningOf(file, RECORD_BYTES);
    } catch (error) {
      throw storeErrorOf(error);
    } finally {
      file.release();
    }
  }

  /**
   * Opens a regular file.
   * @param {string} name from the root
   */
  #openFile(name) {
    const path = this.#resolve(name);
    if (path === undefined) throw new StoreError('not-found');
    let fd;
    try {
      // Opening a named pipe would else wait for a writer, for ever.
      fd = fs.openSync(
        path,
        fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0) | (fs.constants.O_NOFOLLOW ?? 0),
      );
    } catch (error) {
      throw storeErrorOf(error);
    }
    try {
      const stat = fs.fstatSync(fd, { bigint: true });
      // Somebody may have put a link on the way since it was resolved; what is open tells.
      const isWhereItWas = !CAN_TELL_PATHS || fs.readlinkSync(`/proc/self/fd/${fd}`) === path;
      if (!stat.isFile() || !isWhereItWas) throw new StoreError('not-found');
      const modified = stat.mtimeNs > 0n ? stat.mtimeNs : 0n;
      const length = Number(stat.size);
      return { file: new OpenFile(fd, length, this.#accounts), length, modified, version: versionOf(stat) };
    } catch (error) {
      fs.closeSync(fd);
      throw storeErrorOf(error);
    }
  }

  /**
   * The path of a name once every symbolic link on the way is followed, none of which may leave the root, be absolute,
   * or be one too many.
   * @param {string} name from the root
   * @returns {string | undefined} nothing where there is no such way
   */
  #resolve(name) {
    const ahead = name.split('/').reverse();
    /** @type {string[]} */
    const behind = [];
    let links = 0;
    try {
      while (ahead.length > 0) {
        const segment = /** @type {string} */ (ahead.pop());
        if (segment === '' || segment === '.') continue;
        if (segment === '..') {
          if (behind.pop() === undefined) return undefined;
          continue;
        }
        behind.push(segment);
        const path = this.#beneath(behind);
        const found = fs.lstatSync(path, { throwIfNoEntry: false });
        if (found === undefined) return undefined;
        if (found.isSymbolicLink()) {
          links += 1;
          const target = fs.readlinkSync(path);
          if (links > LINKS || target.startsWith('/')) return undefined;
          behind.pop();
          ahead.push(...target.split('/').reverse());
        } else if (ahead.length > 0 && !found.isDirectory()) {
          return undefined;
        }
      }
    } catch (error) {
      throw storeErrorOf(error);
    }
    return this.#beneath(behind);
  }

  /** @param {string[]} segments */
  #beneath(segments) {
    const root = this.#root === '/' ? '' : this.#root;
    return `${root}/${segments.join('/')}`;
  }
}

/** An open object: `resource object` of `wit/media-store.wit`. It stays the same for as long as it is open. */
export class MediaObject {
  #file;
  #info;
  #variants;
  /** Makes a stream, or refuses to: the opener counts them. @type {(make: () => FileSlice) => FileSlice} */
  makeStream = (make) => make();
  #isOpen = true;

  /**
   * @param {OpenFile} file
   * @param {Info} info
   * @param {() => VariantInfo[]} variants
   */
  constructor(file, info, variants) {
    this.#file = file;
    this.#info = info;
    this.#variants = variants;
  }

  get isOpen() {
    return this.#isOpen;
  }

  info() {
    return this.#info;
  }

  variants() {
    return this.#variants();
  }

  /**
   * @param {bigint} offset
   * @param {bigint} length
   * @returns {FileSlice}
   */
  read(offset, length) {
    if (offset + length > this.#info.length) throw new StoreError('out-of-bounds');
    return this.makeStream(() => new FileSlice(this.#file, Number(offset), Number(length)));
  }

  [Symbol.dispose]() {
    if (this.#isOpen) {
      this.#isOpen = false;
      this.#file.release();
    }
  }
}

/** The first bytes of a file, as many as there are. @param {OpenFile} file @param {number} most */
function beginningOf(file, most) {
  const bytes = Buffer.alloc(most);
  let count = 0;
  for (;;) {
    const read = fs.readSync(file.fd, bytes, count, most - count, count);
    count += read;
    if (read === 0 || count === most) return bytes.subarray(0, count);
  }
}

/** Where the path of an open file can be had. */
const CAN_TELL_PATHS = process.platform === 'linux';

/** @typedef {{ suffix: string, ofType?: string, contentCoding?: string }} Candidate */

/** @type {Candidate[]} */
const CODINGS = [
  { suffix: 'br', contentCoding: 'br' },
  { suffix: 'zst', contentCoding: 'zstd' },
  { suffix: 'gz', contentCoding: 'gzip' },
];

/** @type {Candidate[]} */
const PICTURES = [
  { suffix: 'avif', ofType: 'image/avif' },
  { suffix: 'webp', ofType: 'image/webp' },
];

const FORMATS = new Map(['image/png', 'image/jpeg', 'image/gif'].map((mediaType) => [mediaType, PICTURES]));

const COMPRESSIBLE = new Set([
  'application/json',
  'application/javascript',
  'application/xml',
  'application/yaml',
  'application/rtf',
  'application/wasm',
  'application/vnd.apple.mpegurl',
  'application/x-mpegurl',
  'audio/mpegurl',
  'audio/x-mpegurl',
  'audio/scpls',
  'application/x-subrip',
  'image/bmp',
  'image/x-icon',
  'model/gltf-binary',
  'model/obj',
  'model/stl',
  'font/ttf',
  'font/otf',
  'font/collection',
  'application/vnd.ms-fontobject',
]);

/**
 * Whether a type is of text, or of other data that is not compressed by itself, as films and most pictures are.
 * @param {string} mediaType
 */
function isCompressible(mediaType) {
  const essence = mediaType.split(';')[0];
  return /^text\/|\+(xml|json|yaml)$/.test(essence) || COMPRESSIBLE.has(essence);
}

/**
 * Whether a path may name a file. Hidden files are none of a visitor's, and what lies in the content store is had by its
 * id alone, under the rules that its record sets.
 * @param {string} name
 */
function isServedByName(name) {
  const segments = name.split('/');
  if (!segments.every((segment) => canBeAName(segment) && !isHidden(segment))) return false;
  // The store may lie in a folder of what is served.
  return !segments.slice(1).some((file, index) => {
    const id = file.slice(0, 64);
    return isContentId(id) && id.startsWith(segments[index]);
  });
}

/**
 * Whether a file can have that name, and the name means nothing else to the system (`format/src/names.rs`).
 * @param {string} segment
 */
function canBeAName(segment) {
  const meansSomething = process.platform === 'win32' && /[\p{Cc}\\:*?"<>|]|[. ]$/u.test(segment);
  return !['', '.', '..'].includes(segment) && !segment.includes('\0') && !meansSomething;
}

/** Whether a file of that name is hidden: it begins with one dot. More of them begin a title. @param {string} segment */
function isHidden(segment) {
  return /^\.(?!\.)/.test(segment) && segment !== '.well-known';
}

const BUSY = new Set(['EMFILE', 'ENFILE', 'ENOMEM']);
const FAILED = new Set(['EIO', 'ESTALE', 'ETIMEDOUT']);

/**
 * Converts an error of the file system. No entry, no permission, a folder that is none, too many links and a long name
 * all count as a missing object: the reason would tell a client too much.
 * @param {unknown} error
 */
function storeErrorOf(error) {
  if (error instanceof StoreError) return error;
  const { code = '' } = /** @type {NodeJS.ErrnoException} */ (error);
  if (BUSY.has(code)) return new StoreError('busy', error);
  return new StoreError(FAILED.has(code) ? 'io' : 'not-found', error);
}
