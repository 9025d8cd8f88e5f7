// Digests of named files (`host/millpond/src/store/digest_cache.rs`): computed once, and kept for as long as the file stays as it
// is. The digest of a small file is computed when it is opened. A larger file is read in the background: no request waits for
// its digest, and the first responses have none.

import { createHash } from 'node:crypto';
import { fstat, fstatSync, read, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { DIGESTS, DIGEST_LARGEST_BYTES, PIECE_BYTES, SMALL_BYTES } from './limits.js';

/**
 * Identifies a state of a file. It includes the change time, since a modification time can be set back.
 * @typedef {object} FileVersion
 * @property {string} key
 * @property {boolean} isSettled whether every later state would be told from this one: file systems have the time of a
 *   clock that ticks, and the longest tick in use is of 10 ms
 */

/**
 * @param {import('node:fs').BigIntStats} stat
 * @returns {FileVersion}
 */
export function versionOf({ dev, ino, size, mtimeNs, ctimeNs }) {
  const isSettled = BigInt(Date.now()) * 1_000_000n - ctimeNs > 20_000_000n;
  return { key: `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`, isSettled };
}

/** @param {string | Buffer} data */
const sha256 = (data) => createHash('sha256').update(data).digest('hex');

/**
 * The version of a named file as the interface has it: of a small one its digest, and else what its file system tells of
 * it. A digest that is learnt later is never part of it: clients have its tag by then.
 * @param {FileVersion} version
 * @param {string | undefined} digestOfSmall
 */
export function objectVersionOf({ key, isSettled }, digestOfSmall) {
  const [, ...withoutDevice] = key.split(':');
  const text = digestOfSmall ?? sha256(`${isSettled}:${withoutDevice.join(':')}`);
  const tag = digestOfSmall !== undefined || isSettled ? 'strong' : 'weak';
  return { tag: /** @type {'strong' | 'weak'} */ (tag), val: text.slice(0, 32) };
}

/** The digests of one folder's named files. */
export class Digests {
  /** By what tells one state of a file from another; the longest unused first. @type {Map<string, string>} */
  #kept = new Map();
  /** One file is read at a time; others have their turn when they are asked for again. */
  #isBusy = false;
  #accounts;

  /** @param {import('./accounts.js').Accounts} accounts */
  constructor(accounts) {
    this.#accounts = accounts;
  }

  /**
   * The file's SHA-256 in hexadecimal, if it is known; if it is not, it will be. A small file is read at once.
   * @param {import('./open-file.js').OpenFile} file
   * @param {FileVersion} version
   */
  of(file, version) {
    const digest = this.#kept.get(version.key);
    if (digest !== undefined) {
      this.#kept.delete(version.key);
      this.#kept.set(version.key, digest);
      return digest;
    }
    if (file.length <= SMALL_BYTES) return this.#ofSmall(file, version);
    const mayLearn = version.isSettled && !this.#isBusy && file.length <= DIGEST_LARGEST_BYTES;
    if (mayLearn) void this.#learn(file, version.key);
    return undefined;
  }

  /**
   * @param {import('./open-file.js').OpenFile} file
   * @param {FileVersion} version
   */
  #ofSmall({ fd, length }, { key, isSettled }) {
    const bytes = Buffer.alloc(length);
    let count = 0;
    while (count < length) {
      const read = readSync(fd, bytes, count, length - count, count);
      if (read === 0) return undefined;
      count += read;
    }
    const digest = sha256(bytes);
    if (versionOf(fstatSync(fd, { bigint: true })).key !== key) return undefined;
    if (isSettled) this.#keep(key, digest);
    return digest;
  }

  /**
   * @param {import('./open-file.js').OpenFile} file
   * @param {string} version
   */
  async #learn(file, version) {
    this.#isBusy = true;
    file.retain();
    this.#accounts.buffered(PIECE_BYTES);
    try {
      const digest = await digestOf(file, version);
      if (digest !== undefined) this.#keep(version, digest);
    } finally {
      this.#accounts.buffered(-PIECE_BYTES);
      file.release();
      this.#isBusy = false;
    }
  }

  /**
   * @param {string} version
   * @param {string} digest
   */
  #keep(version, digest) {
    this.#kept.set(version, digest);
    if (this.#kept.size > DIGESTS) {
      for (const oldest of this.#kept.keys()) {
        this.#kept.delete(oldest);
        break;
      }
    }
  }
}

const readFrom = promisify(read);
const stat = promisify(fstat);

/**
 * The digest; nothing where the file cannot be read, or has changed meanwhile: then there is none to be told.
 * @param {import('./open-file.js').OpenFile} file
 * @param {string} version
 */
async function digestOf({ fd, length }, version) {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafeSlow(PIECE_BYTES);
  try {
    for (let offset = 0; offset < length;) {
      const { bytesRead } = await readFrom(fd, buffer, 0, PIECE_BYTES, offset);
      if (bytesRead === 0) return undefined;
      hash.update(buffer.subarray(0, bytesRead));
      offset += bytesRead;
    }
    return versionOf(await stat(fd, { bigint: true })).key === version ? hash.digest('hex') : undefined;
  } catch {
    // The requests that read the file itself report the error.
    return undefined;
  }
}
