"""A media guest in Python: whole files, single ranges and conditional requests at `GET /media/<name>`.

It decides every response and never gets a byte of media. It gives the host a handle of the file, and the host sends the
bytes after this instance is gone. The interface is in wit/, with a description of each part.
"""

import json
import re
from urllib.parse import unquote_to_bytes

# componentize-py generates these from wit/ when it builds; `componentize-py ... bindings` writes them to files.
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.media_serve import Part, Part_Bytes, Part_Stream, Request, Response, StreamPart
from wit_world.imports import media_store, settings
from wit_world.imports.media_store import ErrorCode_Busy, ErrorCode_NotFound, Key_Named, Version_Weak

METHODS = ("GET", "HEAD")
RANGE = re.compile(r"bytes= *(\d*)-(\d*) *", re.IGNORECASE | re.ASCII)

Headers = list[tuple[str, str]]


class MediaServe(exports.MediaServe):
    """Export of the world. The host makes an instance for each request, so no state remains from one to the next."""

    def handle(self, request: Request) -> Response:
        """Returns the response to a request. An exception would be a trap, and the response a 500."""
        if request.method not in METHODS:
            return error(request, 405, "Method not allowed", [("allow", ", ".join(METHODS))])
        # The target is as the client sent it: it is not decoded, and has a query.
        path = request.path_with_query.partition("?")[0]
        route = (settings.get().mount_path or "/media").rstrip("/") + "/"
        if not path.startswith(route):
            return error(request, 404, "Not found")
        try:
            # The store itself rejects `..`, hidden files and paths out of its folder.
            name = unquote_to_bytes(path.removeprefix(route)).decode()
            return with_content(request, media_store.open(Key_Named(name)))
        except UnicodeDecodeError:
            return error(request, 400, "Malformed path")
        except Err as refused:
            # An error of the interface is an exception that holds it.
            if isinstance(refused.value, ErrorCode_Busy):
                return error(request, 503, "Server is busy", [("retry-after", "1")])
            if isinstance(refused.value, ErrorCode_NotFound):
                return error(request, 404, "Media not found")
            return error(request, 500, "Media cannot be read")


def with_content(request: Request, found: media_store.Object) -> Response:
    """Responds with the object: 200, 206, 304 or 416 (RFC 9110 sections 13 and 14)."""
    info = found.info()
    opaque = f'"{info.version.value}"' if info.version else None
    is_weak = isinstance(info.version, Version_Weak)
    validators: Headers = [("etag", f"W/{opaque}" if is_weak else opaque)] if opaque else []
    if opaque and is_cached(header(request, "if-none-match"), opaque):
        return response(304, validators, [])

    headers = [*validators, ("content-type", info.media_type), ("accept-ranges", "bytes")]
    # `If-Range` needs a strong match (RFC 9110 section 13.1.5).
    condition = header(request, "if-range")
    applies = condition is None or (condition == opaque and not is_weak)
    selected = select(header(request, "range"), info.length) if applies and request.method == "GET" else None
    if selected is None:
        return response(200, with_length(headers, info.length), body(request, found, 0, info.length))
    first, count = selected
    if count == 0:
        return error(request, 416, "Range not satisfiable", [("content-range", f"bytes */{info.length}")])
    headers.append(("content-range", f"bytes {first}-{first + count - 1}/{info.length}"))
    return response(206, with_length(headers, count), body(request, found, first, count))


def is_cached(value: str | None, opaque: str) -> bool:
    """Whether `If-None-Match` lists the current entity tag, by the weak comparison (RFC 9110 section 13.1.2)."""
    return value is not None and (value.strip() == "*" or opaque in re.findall(r'"[^"]*"', value))


def select(value: str | None, length: int) -> tuple[int, int] | None:
    """The offset and length of a single range; None for the whole, and a length of 0 if it cannot be satisfied.

    Several ranges are ignored, as RFC 9110 section 14.2 allows.
    """
    if value is None or not value.lower().startswith("bytes=") or "," in value or length == 0:
        return None
    parts = RANGE.fullmatch(value)
    if not parts or not (parts[1] or parts[2]):
        return 0, 0
    if not parts[1]:
        count = min(int(parts[2]), length)
        return length - count, count
    first, last = int(parts[1]), min(int(parts[2] or length - 1), length - 1)
    return first, max(last - first + 1, 0)


def header(request: Request, wanted: str) -> str | None:
    """The value of a request header; the values of several lines are joined, as RFC 9110 section 5.3 has it."""
    lines = [value.decode("latin-1") for name, value in request.headers if name == wanted]
    return ", ".join(lines) if lines else None


def body(request: Request, found: media_store.Object, offset: int, length: int) -> list[Part]:
    """The body: no bytes, but a stream that the host takes over with the response."""
    if request.method == "HEAD" or length == 0:
        return []
    return [Part_Stream(StreamPart(found.read(offset, length), length))]


def with_length(headers: Headers, length: int) -> Headers:
    """Adds the length of the content, also for `HEAD`."""
    return [*headers, ("content-length", str(length))]


def error(request: Request, status: int, message: str, headers: Headers | None = None) -> Response:
    """An error in JSON."""
    content = json.dumps({"error": message}).encode()
    headers = [*(headers or []), ("content-type", "application/json"), ("cache-control", "no-store")]
    return response(status, with_length(headers, len(content)), [Part_Bytes(content)] if request.method != "HEAD" else [])


def response(status: int, headers: Headers, body: list[Part]) -> Response:
    """The host adds `Date`, and checks the rest. It caches none of these responses."""
    lines = [(name, value.encode()) for name, value in [*headers, ("x-content-type-options", "nosniff")]]
    return Response(status, lines, body, None)
