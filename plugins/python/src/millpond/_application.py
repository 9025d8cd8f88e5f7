"""The common part of the WSGI and the ASGI application: a request up to its body."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from importlib import resources
from pathlib import Path
from typing import Final, Self

from ._folder import Folder
from ._guest import Answer, Guest, GuestFailed, GuestLimited, WitRequest
from ._response import check
from .figures import Accounts, Figures, Outcome
from .limits import FIELD_LINES, FIELDS_BYTES, TARGET_BYTES, Limits
from .settings import Settings

logger = logging.getLogger("millpond")


class Application:
    """One component over one folder."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        settings: Settings | None = None,
        limits: Limits | None = None,
        component: bytes | None = None,
    ) -> None:
        """Compiles the component and makes everything ready for the first request.

        :param folder: where the media lies.
        :param settings: how to answer.
        :param limits: what a request, and all of them, may take.
        :param component: a component of your own for the world ``millpond:media/media-guest``.
        :raises OSError: when the folder cannot be read.
        :raises ComponentError: when the component cannot be served from.
        """
        self.limits = limits or Limits()
        self.accounts = Accounts()
        self._folder = Folder(folder, self.accounts)
        try:
            self._guest = Guest(component or embedded(), self._folder, settings or Settings(), self.limits)
        except BaseException:
            self._folder.close()
            raise

    def figures(self) -> Figures:
        """Resources that requests hold, and outcomes of ended requests."""
        return self.accounts.figures()

    def close(self) -> None:
        """Closes the folder. To be called when no request is in flight any more."""
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for_digests(self) -> None:
        """Waits until no named file is being read for its digest."""
        self._folder.digests.wait()

    def begin(self) -> Request | None:
        """A new request; none when there are as many in flight as there may be."""
        return Request(self) if self.accounts.begin(self.limits.requests) else None

    def refuse(self) -> Answer:
        """The answer to a request for which there is no room."""
        self.accounts.end("rejected", was_in_flight=False)
        return _error(503, "Server is busy")


class Request:
    """A request in flight, until its owner ends it."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._because: Outcome | None = None
        self._has_ended = False

    def answer(self, method: str, target: str, fields: list[tuple[str, bytes]], client: str | None) -> Answer:
        """Returns the response to a request's head. The caller closes it. It blocks.

        Failures are responses with an error status.
        """
        if len(target) > TARGET_BYTES:
            self._because = "rejected"
            answer = _error(414, "Target too long")
        elif _sum(fields) > FIELDS_BYTES or len(fields) > FIELD_LINES:
            self._because = "rejected"
            answer = _error(431, "Header fields too large")
        else:
            head = WitRequest(method, target, fields, time.time_ns(), secrets.randbits(64), client)
            answer = self._ask(head)
        if method == "HEAD":
            answer.close()
        return answer

    def end(self, end: Outcome) -> None:
        """Ends the request. The first call counts, and an earlier failure takes precedence over its argument."""
        if not self._has_ended:
            self._has_ended = True
            self._application.accounts.end(self._because or end, was_in_flight=True)

    def _ask(self, head: WitRequest) -> Answer:
        try:
            answer = self._application._guest.ask(head)
            try:
                check(answer, head.method)
            except GuestFailed:
                answer.close()
                raise
        except GuestLimited as limited:
            logger.warning("a request met a limit: %s", limited)
            self._because = "limited"
            if limited.is_transient:
                return _error(503, "Request took too long")
            return _error(500, f"Request limit reached: {limited.limit}")
        except GuestFailed as failed:
            logger.error("a request failed: %s", failed)
            self._because = "failed"
            return _error(500, "Media component failed")
        return answer


def embedded() -> bytes:
    """The component of this package: its own copy, or in an editable checkout the one that the host has."""
    packaged = resources.files(__package__).joinpath(_COMPONENT)
    if packaged.is_file():
        return packaged.read_bytes()
    return (_CHECKOUT / _COMPONENT).read_bytes()


def origin_form(target: str) -> str:
    """A target without the scheme and authority of an absolute-form (RFC 9112 section 3.2)."""
    absolute = _ABSOLUTE.match(target)
    if not absolute:
        return target
    rest = target[absolute.end() :]
    return rest if rest.startswith("/") else f"/{rest}"


def without_mount(target: str, mount: str) -> str:
    """A target as seen from where an application is mounted."""
    rest = target.removeprefix(mount)
    if not mount or len(rest) == len(target) or (rest and rest[0] not in "/?"):
        return target
    return rest if rest.startswith("/") else f"/{rest}"


_COMPONENT: Final = "media-serve.wasm"
_CHECKOUT: Final = Path(__file__).resolve().parents[4] / "host" / "millpond" / "component"
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def _sum(fields: list[tuple[str, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in fields)


def _error(status: int, message: str) -> Answer:
    content = json.dumps({"error": message}, separators=(",", ":")).encode()
    fields = [
        ("content-type", b"application/json"),
        ("content-length", b"%d" % len(content)),
        ("cache-control", b"no-store"),
        ("x-content-type-options", b"nosniff"),
    ]
    if status == 503:
        fields.append(("retry-after", b"1"))
    return Answer(status, fields, [content])
