"""From what the guest answered to an answer that can be sent: the guest's word is not taken for any of it."""

from __future__ import annotations

import re
from typing import Final

from ._folder import Slice
from ._guest import Answer, GuestFailed


def check(answer: Answer, method: str) -> None:
    """Sees to it that an answer is sound, and says its length wherever it has content.

    An answer to `HEAD` loses its content.

    :raises GuestFailed: when it cannot be sent, not even in part.
    """
    if not 200 <= answer.status <= 599:
        raise GuestFailed(f"status {answer.status} is no final status")
    fields = [(_name(name), _value(value)) for name, value in answer.fields]
    has_bytes = sum(map(length_of, answer.parts))
    without_content = answer.status in (204, 304)
    if without_content and has_bytes > 0:
        raise GuestFailed(f"status {answer.status} allows no content")
    if not without_content and not (method == "HEAD" and has_bytes == 0):
        promises = [value for name, value in fields if name == "content-length"]
        if not promises:
            fields.append(("content-length", b"%d" % has_bytes))
        elif promises != [b"%d" % has_bytes]:
            raise GuestFailed(f"content-length is {promises} and the body has {has_bytes} bytes")
    answer.fields = fields
    if method == "HEAD":
        answer.close()


def length_of(part: bytes | Slice) -> int:
    """A part's length, in bytes."""
    return len(part) if isinstance(part, bytes) else part.length_bytes


_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*")

# Fields that belong to one connection (RFC 9110 section 7.6.1), which the server alone writes.
_CONNECTION_FIELDS: Final = {
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise GuestFailed(f"the field name {name!r} is malformed")
    name = name.lower()
    if name in _CONNECTION_FIELDS:
        raise GuestFailed(f"the field {name} is the connection's, not the guest's")
    return name


def _value(value: bytes) -> bytes:
    if not _VALUE.fullmatch(value):
        raise GuestFailed("a field's value is malformed")
    return value
