"""A WSGI application (PEP 3333)."""

from __future__ import annotations

import http
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ._application import Application, Request, origin_form, without_mount
from ._folder import Truncated
from ._guest import Answer
from .limits import PIECE_BYTES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class WsgiApp(Application):
    """Serves a folder of media to a WSGI server.

    The server iterates over what a call returns and closes it, as PEP 3333 asks; an error on the way, as for a file
    that has shrunk, is raised from there, and the server has to abort the connection then.
    """

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Body:
        request = self.begin()
        if request is None:
            answer = self.refuse()
        else:
            try:
                answer = request.answer(environ["REQUEST_METHOD"], _target(environ), _fields(environ), _client(environ))
            except BaseException:
                request.end("failed")
                raise
        body = Body(self, request, answer)
        try:
            start_response(_status(answer.status), [(name, value.decode("latin-1")) for name, value in answer.fields])
        except BaseException:
            body.close()
            raise
        return body


class Body:
    """A response's content, piece by piece. It holds open files and one piece at most."""

    def __init__(self, application: Application, request: Request | None, answer: Answer) -> None:
        self._application = application
        self._request = request
        self._answer = answer
        self._piece_bytes = 0
        # wsgiref adds a length of 0 to what gives no piece at all, which is wrong for a 304 (RFC 9110 section 8.6).
        self._has_given_nothing = bool(answer.parts)
        if not answer.parts:
            self._end("completed")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._hold(0)
        if not self._has_given_nothing:
            self._has_given_nothing = True
            return b""
        parts = self._answer.parts
        while parts:
            part = parts[0]
            if isinstance(part, bytes):
                parts.pop(0)
                if part:
                    self._hold(len(part))
                    return part
                continue
            if part.length_bytes == 0:
                parts.pop(0)
                part.close()
                continue
            try:
                piece = part.file.read(part.offset, min(part.length_bytes, PIECE_BYTES))
            except (OSError, Truncated):
                self._end("failed")
                raise
            part.skip(len(piece))
            self._hold(len(piece))
            return piece
        self._end("completed")
        raise StopIteration

    def close(self) -> None:
        """Gives back what the response held; one that has not come to its end was aborted."""
        self._end("aborted")

    def _hold(self, piece_bytes: int) -> None:
        self._application.accounts.hold("buffer_bytes", piece_bytes - self._piece_bytes)
        self._piece_bytes = piece_bytes

    def _end(self, end: Any) -> None:
        self._hold(0)
        self._answer.close()
        if self._request is not None:
            self._request.end(end)


def _target(environ: WSGIEnvironment) -> str:
    """The target, as it came where the server tells it, and else encoded anew from what PEP 3333 gives."""
    mount = quote(environ.get("SCRIPT_NAME", "").encode("latin-1"))
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if isinstance(raw, str):
        return without_mount(origin_form(raw), mount)
    path = environ.get("PATH_INFO", "")
    target = path if path == "*" else quote(path.encode("latin-1"), safe="/!$&'()*+,;=:@~-._") or "/"
    query = environ.get("QUERY_STRING", "")
    return f"{target}?{query}" if query else target


def _fields(environ: WSGIEnvironment) -> list[tuple[str, bytes]]:
    fields = []
    for name, value in environ.items():
        if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value):
            fields.append((name.removeprefix("HTTP_").replace("_", "-").lower(), value.encode("latin-1")))
    return fields


def _client(environ: WSGIEnvironment) -> str | None:
    return environ.get("REMOTE_ADDR") or None


def _status(code: int) -> str:
    try:
        return f"{code} {http.HTTPStatus(code).phrase}"
    except ValueError:
        return f"{code} -"
