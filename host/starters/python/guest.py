"""A media guest in Python: answers `GET /media/<name>` with the file of that name, and everything else with an error.

It decides what is answered and never sees a byte of media: it gives the host a handle on the file, and the host sends the
bytes when this instance is long gone. What it is given and what it gives is in wit/, in words.
"""

import json
from urllib.parse import unquote_to_bytes

# Made of wit/ by componentize-py, in the moment of the build; `componentize-py ... bindings` writes them down.
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.media_serve import Part, Part_Bytes, Part_Stream, Request, Response, StreamPart
from wit_world.imports import media_store
from wit_world.imports.media_store import Key_Named

ROUTE = "/media/"
METHODS = ("GET", "HEAD")


class MediaServe(exports.MediaServe):
    """What the world exports. The host makes a new instance for each request, so nothing is kept from one to the next."""

    def handle(self, request: Request) -> Response:
        """Answers one request. An exception would be a trap, and the client told no more than 500."""
        if request.method not in METHODS:
            return error(request, 405, "Method not allowed", [("allow", ", ".join(METHODS))])
        # The target is as the client sent it: nothing is decoded yet, and the query is still there.
        path = request.target.partition("?")[0]
        if not path.startswith(ROUTE):
            return error(request, 404, "Not found")
        try:
            # Strictly: what is no UTF-8 is no name. The store itself refuses `..`, hidden files and ways out.
            name = unquote_to_bytes(path.removeprefix(ROUTE)).decode()
            return whole(request, media_store.open(Key_Named(name)))
        except UnicodeDecodeError:
            return error(request, 400, "Malformed path")
        except Err as refused:
            # An `err` of the interface comes as an exception that holds it.
            if refused.value == media_store.Error.BUSY:
                return error(request, 503, "Server is busy", [("retry-after", "1")])
            if refused.value == media_store.Error.NOT_FOUND:
                return error(request, 404, "Media not found")
            return error(request, 500, "Media cannot be read")


def whole(request: Request, found: media_store.Object) -> Response:
    """The whole object: one stream of it, which the host takes over with the answer."""
    info = found.info()
    fields = [("content-type", info.media_type), ("content-length", str(info.length))]
    body: list[Part] = []
    if request.method == "GET":
        body.append(Part_Stream(StreamPart(found.read(0, info.length), info.length)))
    return response(200, fields, body)


def error(request: Request, status: int, message: str, fields: list[tuple[str, str]] | None = None) -> Response:
    """An error as JSON, with its length also where it is not sent."""
    content = json.dumps({"error": message}).encode()
    fields = [*(fields or []), ("content-type", "application/json"), ("content-length", str(len(content)))]
    return response(status, fields, [Part_Bytes(content)] if request.method != "HEAD" else [])


def response(status: int, fields: list[tuple[str, str]], body: list[Part]) -> Response:
    """The host adds `Date`, and checks the rest. Nothing is given for reuse: each request is asked anew."""
    lines = [(name, value.encode()) for name, value in [*fields, ("x-content-type-options", "nosniff")]]
    return Response(status, lines, body, None)
