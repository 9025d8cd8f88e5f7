"""A guest in Python that never answers: the host has to end it by its CPU time."""

from wit_world import exports
from wit_world.exports.media_serve import Request, Response


class MediaServe(exports.MediaServe):
    """What the world exports."""

    def handle(self, request: Request) -> Response:
        """Computes for ever."""
        count = 0
        while True:
            count += 1
