// The life of one request, from its head to its answer: one function, its phases in order.

import { randomFillSync } from 'node:crypto';
import { Accounts } from './accounts.js';
import { Folder } from './folder.js';
import { Instances, LimitReached } from './guest.js';
import { Refused, hasContent, logged, originForm, readHead } from './head.js';
import { REQUESTS, SEND_TIMEOUT_MS } from './limits.js';
import { FileSlice } from './open-file.js';
import { check } from './response.js';
import { send } from './sending.js';
import { Settings } from './settings.js';

/**
 * Middleware of a guest and a folder.
 * @param {import('./guest.js').Guest} guest
 * @param {string} root
 * @param {import('../index.js').Options} options
 * @returns {import('../index.js').Middleware}
 */
export function middlewareOf(guest, root, options) {
  const {
    maxRequests = REQUESTS,
    sendTimeoutMs = SEND_TIMEOUT_MS,
    client = addressOf,
    log = logLine,
    ...given
  } = options;
  for (const [option, value] of Object.entries({ maxRequests, sendTimeoutMs })) {
    if (!Number.isInteger(value) || value < 1) throw new TypeError(`${option}: a whole number from 1 on`);
  }
  const settings = new Settings(given);
  const accounts = new Accounts();
  const instances = new Instances(guest, new Folder(root, accounts), settings);
  const isServed = routesAt(settings.mountPath);

  /** @type {import('../index.js').Middleware} */
  const middleware = (request, response, next) => {
    if (next && !isServed(originForm(request.url ?? ''))) return next();
    accounts.begin();
    /** @type {import('../index.js').Outcome} */
    let end = 'completed';
    let answer;
    try {
      if (accounts.requestsInFlight > maxRequests) throw new Refused(503, 'Server is busy');
      answer = answerTo(request);
    } catch (error) {
      end = endOf(error);
      if (end !== 'rejected') log(`${request.method} ${logged(request.url ?? '')}: ${error}`);
      answer = answerOf(error);
    }
    // Node looks for the next request behind this one's content, which nobody here has read.
    if (hasContent(request)) response.setHeader('Connection', 'close');
    if (request.method === 'HEAD') answer = withoutBody(answer);
    send(response, answer, {
      accounts,
      end,
      sendTimeoutMs,
      failed: () => answerOf(new ReadFailed()),
      log: (why) => log(`${request.method} ${logged(request.url ?? '')}: ${why}`),
    });
  };

  /** @param {import('node:http').IncomingMessage} request */
  function answerTo(request) {
    const answer = instances.ask({
      ...readHead(request),
      received: BigInt(Date.now()) * 1_000_000n,
      random: random(),
      client: client(request),
    });
    try {
      return check(answer, request.method ?? '');
    } catch (error) {
      for (const part of answer.body) if (part.tag === 'stream') close(part.val.source);
      throw error;
    }
  }

  middleware.figures = () => accounts.figures();
  middleware.idle = () => accounts.idle();
  return middleware;
}

/** A file could not be read, and nothing of the answer has left yet. */
class ReadFailed extends Error {}

/**
 * Which targets are the guest's, where there is somebody else to ask.
 * @param {string} mountPath
 */
function routesAt(mountPath) {
  const prefix = mountPath === '/' ? '/' : `${mountPath}/`;
  return (/** @type {string} */ target) =>
    target.startsWith('/api/media/') ||
    target.startsWith(prefix) ||
    target === mountPath ||
    target.startsWith(`${mountPath}?`);
}

/** @param {unknown} error @returns {import('../index.js').Outcome} */
function endOf(error) {
  if (error instanceof Refused) return 'rejected';
  return error instanceof LimitReached ? 'limited' : 'failed';
}

/**
 * Makes an error response. It tells the client how to react, and no internals.
 * @param {unknown} error
 * @returns {import('./response.js').Checked}
 */
function answerOf(error) {
  const [status, message] = told(error);
  const json = Buffer.from(JSON.stringify({ error: message }));
  const fields = ['content-type', 'application/json', 'content-length', String(json.length)];
  fields.push('cache-control', 'no-store', 'x-content-type-options', 'nosniff');
  if (status === 503) fields.push('retry-after', '1');
  if (error instanceof Refused && status < 500) fields.push('connection', 'close');
  return { status, fields, parts: [json] };
}

/** @param {unknown} error @returns {[number, string]} */
function told(error) {
  if (error instanceof Refused) return [error.status, error.message];
  if (error instanceof LimitReached) return [500, `Request limit reached: ${error.limit}`];
  return [500, error instanceof ReadFailed ? 'Stream error' : 'Media component failed'];
}

/** @param {import('./response.js').Checked} answer */
function withoutBody(answer) {
  for (const part of answer.parts) if (part instanceof FileSlice) close(part);
  return { ...answer, parts: [] };
}

/** @param {unknown} stream */
function close(stream) {
  if (stream instanceof FileSlice) stream[Symbol.dispose]();
}

/** The address at the other end of the connection. @param {import('node:http').IncomingMessage} request */
function addressOf({ socket }) {
  return socket.remoteAddress?.replace(/^::ffff:(?=\d+\.)/, '');
}

const drawn = new BigUint64Array(64);
let unused = 0;

/** An unpredictable number. Numbers are drawn by the dozen, since each draw costs a system call. */
function random() {
  if (unused === 0) {
    randomFillSync(drawn);
    unused = drawn.length;
  }
  unused -= 1;
  return drawn[unused];
}

/** @param {string} line */
function logLine(line) {
  console.error(`millpond: ${line}`);
}
