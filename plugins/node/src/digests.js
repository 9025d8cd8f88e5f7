// Digests of named files (`host/src/store/digests.rs`): computed once, in the background, and kept for as long as the
// file stays as it is. No request waits for one: the first ones are answered without.

import { createHash } from 'node:crypto';
import { fstat, read } from 'node:fs';
import { promisify } from 'node:util';
import { DIGESTS, DIGEST_LARGEST_BYTES, PIECE_BYTES } from './limits.js';

/**
 * What tells one state of a file from another.
 * @param {import('node:fs').BigIntStats} stat
 */
export function versionOf({ dev, ino, size, mtimeNs }) {
  return `${dev}:${ino}:${size}:${mtimeNs}`;
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
   * The file's SHA-256 in hexadecimal, if it is known; if it is not, it will be.
   * @param {import('./open-file.js').OpenFile} file
   * @param {string} version
   */
  of(file, version) {
    const digest = this.#kept.get(version);
    if (digest === undefined) {
      if (!this.#isBusy && file.length <= DIGEST_LARGEST_BYTES) this.#learn(file, version);
      return undefined;
    }
    this.#kept.delete(version);
    this.#kept.set(version, digest);
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
    return versionOf(await stat(fd, { bigint: true })) === version ? hash.digest('hex') : undefined;
  } catch {
    // A read that fails is told to whoever asks for the file itself.
    return undefined;
  }
}
