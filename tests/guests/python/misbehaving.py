"""The starter, with targets that never come to an end: one takes time, the others memory.

CPython turns memory that is refused into a `MemoryError`, so a guest that catches it lives on and may answer, within its
limit. One that does not is ended by a trap.
"""

import guest
from wit_world.exports.media_serve import Part_Bytes, Request, Response


class MediaServe(guest.MediaServe):
    """What the world exports."""

    def handle(self, request: Request) -> Response:
        """Answers as the starter does, if at all."""
        while request.path_with_query == "/endless-loop":
            pass
        if request.path_with_query == "/memory-hog":
            hoard([])
        if request.path_with_query == "/memory-hog/caught":
            hoarded: list[bytearray] = []
            try:
                hoard(hoarded)
            except MemoryError:
                pieces = len(hoarded)
                hoarded.clear()
                return Response(200, [], [Part_Bytes(b"%d pieces of 64 KiB" % pieces)], None)
        return super().handle(request)


def hoard(into: list[bytearray]) -> None:
    """Takes memory until there is no more."""
    while True:
        # Not zeros alone: what is never written is never there.
        into.append(bytearray(b"\x01" * 65536))
