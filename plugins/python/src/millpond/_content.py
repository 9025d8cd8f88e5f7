"""Content addresses, and the record that lies beside each stored file."""

from __future__ import annotations

import calendar
import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from .limits import VARIANTS

Access = Literal["public", "private"]


@dataclass(frozen=True)
class RecordedVariant:
    """The same media in another format or coding, stored by its own content."""

    id: str
    media_type: str
    content_coding: str | None


@dataclass(frozen=True)
class Record:
    """Metadata of stored media. Media whose record is missing or corrupt is not served."""

    media_type: str
    size_bytes: int
    created_ns: int
    access: Access
    variants: tuple[RecordedVariant, ...]


def is_content_id(text: str) -> bool:
    """Whether it is 64 lower-case hexadecimal digits."""
    return _ID.fullmatch(text) is not None


def parse_record(data: bytes) -> Record | None:
    """Reads a record as it lies in the store; none where it is corrupt.

    A media type that could not stand in a field is damage too.
    """
    try:
        # Given bytes, `json` would guess an encoding; a record is in UTF-8.
        value = json.loads(data.decode(), object_pairs_hook=_without_doubles, parse_constant=_refuse)
        variants = tuple(map(_variant, _list(value.get("variants", []))))
        if len(variants) > VARIANTS:
            return None
        return Record(
            media_type=_field_value(value["media_type"]),
            size_bytes=_size(value["size"]),
            created_ns=_timestamp_ns(value["created"]),
            access=_access(value["access"]),
            variants=variants,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


_ID: Final = re.compile(r"[0-9a-f]{64}")
_FIELD_VALUE: Final = re.compile(r"[\t -~]*")
_TIMESTAMP: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_KNOWN: Final = {"media_type", "size", "created", "access", "variants", "id", "content_coding"}


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs if name in _KNOWN]
    if len(names) != len(set(names)):
        raise ValueError("a field is there twice")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _variant(value: Any) -> RecordedVariant:
    coding = value.get("content_coding")
    if not is_content_id(value["id"]):
        raise ValueError("no content id")
    if coding is not None:
        coding = _field_value(coding)
    return RecordedVariant(value["id"], _field_value(value["media_type"]), coding)


def _field_value(value: Any) -> str:
    if not isinstance(value, str) or not _FIELD_VALUE.fullmatch(value):
        raise ValueError("no field value")
    return value


def _size(value: Any) -> int:
    # A JSON `true` is an `int` in Python.
    if type(value) is not int or not 0 <= value < 2**64:
        raise ValueError("no size")
    return value


def _access(value: Any) -> Access:
    if value == "public":
        return "public"
    if value == "private":
        return "private"
    raise ValueError("no access")


def _timestamp_ns(value: Any) -> int:
    found = _TIMESTAMP.fullmatch(value)
    if not found:
        raise ValueError("no time")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    is_date = 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
    if year < 1970 or not is_date or hour > 23 or minute > 59 or second > 60:
        raise ValueError("no time")
    # A leap second is the one before it, as for the host.
    seconds = calendar.timegm((year, month, day, hour, minute, min(second, 59)))
    return seconds * 1_000_000_000 + int((found[7] or "").ljust(9, "0"))
