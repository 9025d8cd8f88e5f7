// The starter, with one target that never comes to an end.

import { mediaServe as starter } from '../../../host/starters/javascript/guest.js';

export const mediaServe = {
  handle(request) {
    while (request.target === '/endless-loop');
    return starter.handle(request);
  },
};
