// The starter, with two targets that never come to an end: one takes time, the other memory.

import { mediaServe as starter } from '../../../host/cli/starters/javascript/guest.js';

export const mediaServe = {
  handle(request) {
    while (request.pathWithQuery === '/endless-loop');
    const hoard = [];
    while (request.pathWithQuery === '/memory-hog') hoard.push(new Uint8Array(64 * 1024).fill(1));
    return starter.handle(request);
  },
};
