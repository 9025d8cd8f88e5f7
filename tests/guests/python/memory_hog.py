"""A guest in Python that takes all the memory it can get, and then tells: the host has to refuse it the rest.

CPython turns the refusal into a `MemoryError`, so the guest lives on and may answer, within its limit. With `/trap` as
its target it does not catch it, which ends it by a trap.
"""

from wit_world import exports
from wit_world.exports.media_serve import Part_Bytes, Request, Response


class MediaServe(exports.MediaServe):
    """What the world exports."""

    def handle(self, request: Request) -> Response:
        """Takes memory until there is no more."""
        hoard: list[bytearray] = []
        try:
            while True:
                # Not zeros alone: what is never written is never there.
                hoard.append(bytearray(b"\x01" * 65536))
        except MemoryError:
            if request.target == "/trap":
                raise
            pieces = len(hoard)
            hoard.clear()
        return Response(200, [], [Part_Bytes(b"%d pieces of 64 KiB" % pieces)], None)
