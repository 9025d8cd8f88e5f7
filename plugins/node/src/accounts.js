// Resources that requests hold, and outcomes of ended requests.

/** Counts what is held, and tells when nothing is. */
export class Accounts {
  openFiles = 0;
  requestsInFlight = 0;
  bytesInBuffers = 0;
  /** @type {Record<import('../index.js').Outcome, number>} */
  ended = { completed: 0, aborted: 0, rejected: 0, limited: 0, failed: 0 };
  /** @type {(() => void)[]} */
  #waiting = [];

  begin() {
    this.requestsInFlight += 1;
  }

  /** @param {import('../index.js').Outcome} how */
  end(how) {
    this.requestsInFlight -= 1;
    this.ended[how] += 1;
    this.#tell();
  }

  fileOpened() {
    this.openFiles += 1;
  }

  fileClosed() {
    this.openFiles -= 1;
    this.#tell();
  }

  /** @param {number} count bytes, negative where they are given back */
  buffered(count) {
    this.bytesInBuffers += count;
    this.#tell();
  }

  /**
   * Resolves once nothing is held: no request, no file, no buffer.
   * @returns {Promise<void>}
   */
  idle() {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#tell();
    });
  }

  /** @returns {import('../index.js').Figures} */
  figures() {
    const { openFiles, requestsInFlight, bytesInBuffers, ended } = this;
    return { openFiles, requestsInFlight, bytesInBuffers, ...ended };
  }

  #tell() {
    if (this.#waiting.length === 0) return;
    if (this.openFiles === 0 && this.requestsInFlight === 0 && this.bytesInBuffers === 0) {
      for (const resolve of this.#waiting.splice(0)) resolve();
    }
  }
}
