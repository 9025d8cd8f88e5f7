// One answer on its way to its client: head, parts, and how it ends.

import { read } from 'node:fs';
import { PIECE_BYTES } from './limits.js';
import { FileSlice } from './open-file.js';
import { lengthOf } from './response.js';

/**
 * Sends a response. A file is read piece by piece into one buffer, the next piece once the kernel has taken the last;
 * so an answer holds one piece, however slow its client is. When it ends, be it by its last byte, by a client that goes
 * at any moment, by a failed read or by a stall, its files are closed and its buffer is given back, once.
 * @param {import('node:http').ServerResponse} response
 * @param {import('./response.js').Checked} answer
 * @param {Context} context
 */
export function send(response, answer, context) {
  new Sending(response, answer, context).start();
}

/**
 * @typedef {object} Context
 * @property {import('./accounts.js').Accounts} accounts
 * @property {import('../index.js').Outcome} end how it ends if it is sent whole
 * @property {number} sendTimeoutMs
 * @property {() => import('./response.js').Checked} failed the answer where the first read fails
 * @property {(message: string) => void} log
 */

class Sending {
  #response;
  #answer;
  #context;
  #parts;
  #remaining;
  /** How it ends if it is sent whole. @type {import('../index.js').Outcome} */
  #how;
  #held = 0;
  #buffer = NOTHING;
  #isReading = false;
  #hasEnded = false;
  #stopWatching = () => {};
  /** @type {NodeJS.Timeout | undefined} */
  #stall;

  /**
   * @param {import('node:http').ServerResponse} response
   * @param {import('./response.js').Checked} answer
   * @param {Context} context
   */
  constructor(response, answer, context) {
    this.#response = response;
    this.#answer = answer;
    this.#context = context;
    this.#parts = answer.parts;
    this.#remaining = bytesOf(answer.parts);
    this.#how = context.end;
  }

  start() {
    const { socket } = this.#response.req;
    if (this.#response.destroyed || socket.destroyed) return this.#end('aborted');
    this.#hold(bytesOf(this.#parts.filter((part) => !(part instanceof FileSlice))));
    this.#response.once('close', () => this.#end('aborted'));
    this.#stopWatching = watch(socket, () => this.#end('aborted'));
    const stalled = () => this.#cut('limited', 'the client takes too little');
    this.#stall = setTimeout(stalled, this.#context.sendTimeoutMs).unref();
    this.#next();
  }

  #next() {
    if (this.#hasEnded) return;
    for (let part; (part = this.#parts[0]); this.#drop()) {
      if (lengthOf(part) > 0)
        return part instanceof FileSlice ? this.#read(part) : this.#write(this.#take(part));
    }
    this.#sendHead();
    this.#response.end(() => this.#end(this.#how));
  }

  /** @param {FileSlice} slice */
  #read(slice) {
    if (this.#buffer === NOTHING) {
      const bytes = Math.min(PIECE_BYTES, this.#remaining);
      this.#hold(bytes);
      this.#buffer = Buffer.allocUnsafeSlow(bytes);
    }
    const most = Math.min(this.#buffer.length, slice.remaining);
    this.#isReading = true;
    read(slice.file.fd, this.#buffer, 0, most, slice.offset, (error, count) => {
      this.#isReading = false;
      // It went while it was read: what it holds was kept for the read.
      if (this.#hasEnded) return this.#giveBack();
      if (error) return this.#fail(error);
      if (count === 0) return this.#fail(new Error('the file has shrunk since it was opened'));
      slice.offset += count;
      slice.remaining -= count;
      if (slice.remaining === 0) this.#drop();
      this.#write(this.#buffer.subarray(0, count));
    });
  }

  /** @param {Uint8Array} bytes */
  #write(bytes) {
    this.#sendHead();
    this.#remaining -= bytes.length;
    this.#stall?.refresh();
    if (this.#remaining === 0) {
      this.#response.end(bytes, () => this.#end(this.#how));
    } else {
      // A failed write is followed by the response's `close`.
      this.#response.write(bytes, (error) => error || this.#next());
    }
  }

  #sendHead() {
    if (!this.#response.headersSent) this.#response.writeHead(this.#answer.status, this.#answer.fields);
  }

  /** @param {Error} error */
  #fail(error) {
    if (this.#response.headersSent) return this.#cut('failed', error.message);
    this.#context.log(error.message);
    while (this.#parts.length > 0) this.#drop();
    this.#how = 'failed';
    this.#answer = this.#context.failed();
    this.#parts = this.#answer.parts;
    this.#remaining = bytesOf(this.#parts);
    this.#next();
  }

  /**
   * Ends it for all to see: a body that is short of its length never looks whole.
   * @param {import('../index.js').Outcome} how
   * @param {string} why
   */
  #cut(how, why) {
    this.#context.log(why);
    this.#end(how);
    this.#response.destroy();
  }

  /** @param {import('../index.js').Outcome} how */
  #end(how) {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearTimeout(this.#stall);
    this.#stopWatching();
    if (!this.#isReading) this.#giveBack();
    this.#context.accounts.end(how);
  }

  /** Not before a read has come back: its descriptor could be another file's by then. */
  #giveBack() {
    while (this.#parts.length > 0) this.#drop();
    this.#buffer = NOTHING;
    this.#context.accounts.buffered(-this.#held);
    this.#held = 0;
  }

  /** @param {Uint8Array} part the first one */
  #take(part) {
    this.#parts.shift();
    return part;
  }

  #drop() {
    const part = this.#parts.shift();
    if (part instanceof FileSlice) part[Symbol.dispose]();
  }

  /** @param {number} bytes */
  #hold(bytes) {
    this.#held += bytes;
    this.#context.accounts.buffered(bytes);
  }
}

/** @param {import('./response.js').Part[]} parts */
function bytesOf(parts) {
  return parts.reduce((sum, part) => sum + lengthOf(part), 0);
}

const NOTHING = Buffer.alloc(0);

/** The answers in progress on each connection. @type {WeakMap<import('node:net').Socket, Set<() => void>>} */
const watched = new WeakMap();

/**
 * Calls when the connection closes, also for an answer that waits there for its turn behind others, of which Node tells
 * nothing then.
 * @param {import('node:net').Socket} socket
 * @param {() => void} hasGone
 * @returns {() => void} ends it
 */
function watch(socket, hasGone) {
  let answers = watched.get(socket);
  if (!answers) {
    const all = new Set();
    answers = all;
    watched.set(socket, all);
    socket.once('close', () => {
      for (const tell of all) tell();
    });
  }
  const all = answers.add(hasGone);
  return () => all.delete(hasGone);
}
