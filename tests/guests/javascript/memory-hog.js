// The starter, with one target that takes memory without end.

import { mediaServe as starter } from '../../../host/starters/javascript/guest.js';

export const mediaServe = {
  handle(request) {
    const hoard = [];
    while (request.target === '/memory-hog') hoard.push(new Uint8Array(64 * 1024).fill(1));
    return starter.handle(request);
  },
};
