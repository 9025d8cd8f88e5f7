"""Resources that an application holds, and outcomes of its requests."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal, TypedDict

Outcome = Literal["completed", "aborted", "rejected", "limited", "failed"]
"""How a request ended: its answer went out whole; the client left, or took too little; there was no room, or its head
was too large; it met a limit; something failed."""

Held = Literal["open_files", "requests_in_flight", "buffer_bytes"]


class Figures(TypedDict):
    """A moment's figures. The first three are zero when there is no request."""

    open_files: int
    requests_in_flight: int
    buffer_bytes: int
    completed: int
    aborted: int
    rejected: int
    limited: int
    failed: int


@dataclass
class Accounts:
    """Counts, from any thread."""

    _figures: Figures = field(
        default_factory=lambda: Figures(
            open_files=0,
            requests_in_flight=0,
            buffer_bytes=0,
            completed=0,
            aborted=0,
            rejected=0,
            limited=0,
            failed=0,
        )
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def figures(self) -> Figures:
        """A copy of this moment's figures."""
        with self._lock:
            return self._figures.copy()

    def hold(self, held: Held, amount: int = 1) -> None:
        """Counts what is held from now on; a negative amount gives it back."""
        with self._lock:
            self._figures[held] += amount

    def begin(self, most: int) -> bool:
        """Counts a request in flight, unless there are as many as there may be."""
        with self._lock:
            if self._figures["requests_in_flight"] >= most:
                return False
            self._figures["requests_in_flight"] += 1
            return True

    def end(self, end: Outcome, *, was_in_flight: bool) -> None:
        """Counts how a request ended."""
        with self._lock:
            self._figures[end] += 1
            if was_in_flight:
                self._figures["requests_in_flight"] -= 1
