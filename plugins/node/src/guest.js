// The guest component, and the instance that makes responses.

import { readFileSync } from 'node:fs';
import { CALLS_PER_INSTANCE, GUEST_MEMORY_BYTES, HANDLES } from './limits.js';
import { MediaObject } from './folder.js';
import { FileSlice } from './open-file.js';

/** @typedef {import('../dist/interfaces/millpond-media-media-serve.js').Request} Request */
/** @typedef {import('../dist/interfaces/millpond-media-media-serve.js').Response} Response */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').Key} Key */
/** @typedef {import('../dist/interfaces/millpond-media-media-store.js').ListQuery} ListQuery */

/** A limit that a request met. */
export class LimitReached extends Error {
  /** @param {string} limit its name, as the native host has it */
  constructor(limit) {
    super(`limit reached: ${limit}`);
    this.limit = limit;
  }
}

/** A guest as `build.js` makes it, compiled once. */
export class Guest {
  /** @type {Map<string, WebAssembly.Module>} */
  #modules = new Map();
  #folder;

  /**
   * @param {typeof import('../dist/guest.js').instantiate} instantiate
   * @param {URL} folder where its core modules lie
   */
  constructor(instantiate, folder) {
    this.instantiate = instantiate;
    this.#folder = folder;
  }

  /** @param {string} name of a core module */
  module(name) {
    const compiled =
      this.#modules.get(name) ?? new WebAssembly.Module(readFileSync(new URL(name, this.#folder)));
    this.#modules.set(name, compiled);
    return compiled;
  }
}

/**
 * Answers one request after another, each in an instance that is as good as new.
 *
 * To make one takes milliseconds with jco's glue around it, so it is used again; but its memory is put back to what it
 * was before the first request, so that nothing of a request is there for the next one to see. It is replaced when a
 * call fails or traps, when its memory has grown, when it has kept a handle, and after some thousand calls. A call is
 * one step of the event loop: there is never a second one in the instance, and no answer keeps it.
 */
export class Instances {
  #guest;
  #store;
  #settings;
  /** @type {Instance | undefined} */
  #ready;
  /** Handles that the request in the instance has opened. @type {(MediaObject | FileSlice)[]} */
  #opened = [];

  /**
   * @param {Guest} guest
   * @param {import('./folder.js').Folder} store
   * @param {import('./settings.js').Settings} settings
   */
  constructor(guest, store, settings) {
    this.#guest = guest;
    this.#store = store;
    this.#settings = settings;
  }

  /**
   * Returns the guest's response. The caller disposes of the streams in it. All other handles are closed.
   * @param {Request} request
   * @returns {Response}
   * @throws {LimitReached} and the error of a trap
   */
  ask(request) {
    const instance = this.#ready ?? this.#instantiate();
    // Whatever throws leaves no instance behind.
    this.#ready = undefined;
    const given = new Set();
    try {
      const answer = instance.handle(request);
      for (const part of answer.body) if (part.tag === 'stream') given.add(part.val.source);
      if (instance.memoryBytes > GUEST_MEMORY_BYTES) throw new LimitReached('guest memory');
      const hasKept = this.#opened.some((handle) => handle.isOpen && !given.has(handle));
      if (!hasKept && instance.renew()) this.#ready = instance;
      return answer;
    } catch (error) {
      given.clear();
      throw error;
    } finally {
      for (const handle of this.#opened) if (!given.has(handle)) handle[Symbol.dispose]();
      this.#opened = [];
    }
  }

  #instantiate() {
    const settings = this.#settings;
    return new Instance(this.#guest, {
      'millpond:media/media-store': {
        Object: MediaObject,
        open: (/** @type {Key} */ key) => {
          const object = this.#keep(() => this.#store.open(key));
          object.makeStream = (make) => this.#keep(make);
          return object;
        },
        list: (/** @type {string} */ folder, /** @type {ListQuery} */ query) =>
          this.#store.list(folder, query),
      },
      'millpond:media/settings': {
        get: () => settings.record,
        signingKeys: () => settings.signingKeys,
      },
      'wasi:io/streams': { InputStream: FileSlice },
    });
  }

  /**
   * @template {MediaObject | FileSlice} Handle
   * @param {() => Handle} open
   */
  #keep(open) {
    if (this.#opened.length === HANDLES) throw new LimitReached('handles');
    const handle = open();
    this.#opened.push(handle);
    return handle;
  }
}

/** One instance, and its memory as it was at first. */
class Instance {
  #memory;
  #serve;
  #fresh;
  #calls = 0;

  /**
   * @param {Guest} guest
   * @param {object} imports as `wit/world.wit` has them
   */
  constructor(guest, imports) {
    /** @type {WebAssembly.Memory[]} */
    const memories = [];
    const exports = guest.instantiate(
      (name) => guest.module(name),
      // jco's types have the names with versions, its glue those without.
      /** @type {any} */ (imports),
      (module, imports) => {
        const instance = new WebAssembly.Instance(module, imports);
        const { memory } = instance.exports;
        if (memory instanceof WebAssembly.Memory) memories.push(memory);
        return instance;
      },
    );
    if (memories.length !== 1) throw new Error(`a guest has one memory, and this one ${memories.length}`);
    [this.#memory] = memories;
    this.#serve = exports.mediaServe;
    this.#fresh = new Uint8Array(this.#memory.buffer).slice();
  }

  get memoryBytes() {
    return this.#memory.buffer.byteLength;
  }

  /** @param {Request} request */
  handle(request) {
    this.#calls += 1;
    return this.#serve.handle(request);
  }

  /** Puts its memory back to what it was; tells whether it may be used again. */
  renew() {
    if (this.#calls >= CALLS_PER_INSTANCE || this.memoryBytes !== this.#fresh.length) return false;
    new Uint8Array(this.#memory.buffer).set(this.#fresh);
    return true;
  }
}
