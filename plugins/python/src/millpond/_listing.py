"""One page of a folder's listing, selected with bounded memory (``format/src/listing.rs``)."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

MAX_READ: Final = 1_000_000
"""Maximum number of entries that are read of one folder."""

_MAX_ENTRIES: Final = 200

ListOrder = Literal["name", "modified", "length"]
"""Order of a listing: ``enum list-order`` of the interface."""


@dataclass(frozen=True)
class FileEntry:
    """Metadata of a file in a listing: ``record file-entry`` of the interface."""

    length_bytes: int
    media_type: str


@dataclass(frozen=True)
class Entry:
    """An entry of a folder: ``record entry`` of the interface. It is a folder if it is no file."""

    name: str
    modified_ns: int | None
    file: FileEntry | None


@dataclass(frozen=True)
class ListQuery:
    """Request for one page of a folder: ``record list-query`` of the interface."""

    order: ListOrder
    descending: bool
    search: str | None
    after: Entry | None
    most: int

    def matches(self, name: str) -> bool:
        """Whether a name matches the search."""
        return self.search is None or self.search.lower() in name.lower()

    @property
    def needs_metadata(self) -> bool:
        """Whether the order needs modification times and lengths."""
        return self.order != "name"


@dataclass(frozen=True)
class Listing:
    """One page of a folder: ``record listing`` of the interface."""

    entries: list[Entry]
    total: int
    has_more: bool


def select(query: ListQuery, entries: Iterable[Entry]) -> Listing:
    """The page of a query among the entries that match it."""
    most = min(query.most, _MAX_ENTRIES)
    total = 0
    after = query.after

    def following() -> Iterable[Entry]:
        nonlocal total
        for entry in entries:
            total += 1
            if after is None or _compare(query, entry, after) > 0:
                yield entry

    key = functools.cmp_to_key(functools.partial(_compare, query))
    first = heapq.nsmallest(most + 1, following(), key=key)
    return Listing(first[:most], total, len(first) > most)


def _compare(query: ListQuery, one: Entry, other: Entry) -> int:
    """Folders first in every order; then by the order, and by name among equals."""
    if (one.file is None) != (other.file is None):
        return -1 if one.file is None else 1
    sign = -1 if query.descending else 1
    mine, theirs = _value(query.order, one), _value(query.order, other)
    if mine != theirs:
        return sign if mine > theirs else -sign
    by_name = (_name(one) > _name(other)) - (_name(one) < _name(other))
    # Entries of equal time or length stay ordered by name.
    return sign * by_name if query.order == "name" else by_name


def _value(order: ListOrder, entry: Entry) -> int:
    if order == "modified":
        return entry.modified_ns or 0
    if order == "length" and entry.file is not None:
        return entry.file.length_bytes
    return 0


def _name(entry: Entry) -> tuple[str, str]:
    return entry.name.lower(), entry.name
