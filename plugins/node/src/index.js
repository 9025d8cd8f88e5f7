import { instantiate } from '../dist/guest.js';
import { Guest } from './guest.js';
import { middlewareOf } from './middleware.js';

const guest = new Guest(instantiate, new URL('../dist/', import.meta.url));

/** @type {typeof import('../index.js').millpond} */
export function millpond(root, options = {}) {
  return middlewareOf(guest, root, options);
}

export default millpond;
