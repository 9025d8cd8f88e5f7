// An open file that closes with its last user, and slices of it.

import { closeSync } from 'node:fs';

/** A file descriptor, counted while it is open. Whoever keeps it retains it, and releases it once. */
export class OpenFile {
  #users = 1;
  #accounts;

  /**
   * @param {number} fd
   * @param {number} length when it was opened, in bytes
   * @param {import('./accounts.js').Accounts} accounts
   */
  constructor(fd, length, accounts) {
    this.fd = fd;
    this.length = length;
    this.#accounts = accounts;
    accounts.fileOpened();
  }

  retain() {
    this.#users += 1;
    return this;
  }

  release() {
    this.#users -= 1;
    if (this.#users === 0) {
      closeSync(this.fd);
      this.#accounts.fileClosed();
    }
  }
}

/** The bytes of an open file from an offset on: `input-stream` as the store gives it. It holds no bytes. */
export class FileSlice {
  #isOpen = true;

  /**
   * @param {OpenFile} file
   * @param {number} offset in bytes
   * @param {number} remaining bytes not yet read
   */
  constructor(file, offset, remaining) {
    this.file = file.retain();
    this.offset = offset;
    this.remaining = remaining;
  }

  get isOpen() {
    return this.#isOpen;
  }

  [Symbol.dispose]() {
    if (this.#isOpen) {
      this.#isOpen = false;
      this.file.release();
    }
  }
}
