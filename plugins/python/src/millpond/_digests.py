"""Digests of named files: computed once, in the background, and kept for as long as the file stays as it is.

Content-addressed media has its digest for a name. A named file's costs reading it, so no request waits for that:
the first ones are answered without.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable

from .limits import DIGEST_BYTES, DIGESTS, PIECE_BYTES


class Digests:
    """The digests of one folder's named files."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, str] = OrderedDict()
        self._lock = threading.Lock()
        # One file is read at a time; others have their turn when they are asked for again.
        self._learning: threading.Thread | None = None

    def of(self, descriptor: int) -> str | None:
        """The file's SHA-256 in hexadecimal, if it is known; if it is not, it will be."""
        found = os.fstat(descriptor)
        if found.st_size > DIGEST_BYTES:
            return None
        version = _version(found)
        with self._lock:
            digest = self._kept.get(version)
            if digest is not None:
                self._kept.move_to_end(version)
                return digest
            if self._learning is not None:
                return None
            try:
                own = os.dup(descriptor)
            except OSError:
                # No descriptor is left for it; it has its turn later.
                return None
            learning = (own, version)
            self._learning = threading.Thread(target=self._learn, args=learning, name="millpond-digest", daemon=True)
            try:
                self._learning.start()
            except RuntimeError:
                self._learning = None
                os.close(own)
        return None

    def wait(self) -> None:
        """Waits until no file is being read."""
        learning = self._learning
        if learning is not None:
            learning.join()

    def _learn(self, descriptor: int, version: Hashable) -> None:
        try:
            digest = _digest(descriptor, os.fstat(descriptor).st_size)
            # What changed while it was read has another version by now.
            if digest is not None and _version(os.fstat(descriptor)) == version:
                with self._lock:
                    self._kept[version] = digest
                    if len(self._kept) > DIGESTS:
                        self._kept.popitem(last=False)
        except OSError:
            # A file that cannot be read goes without; whoever serves it learns why.
            pass
        finally:
            os.close(descriptor)
            with self._lock:
                self._learning = None


def _version(found: os.stat_result) -> Hashable:
    """What tells one state of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _digest(descriptor: int, length: int) -> str | None:
    """Reads by place, since others read by the same position."""
    hasher = hashlib.sha256()
    offset = 0
    while offset < length:
        piece = os.pread(descriptor, PIECE_BYTES, offset)
        if not piece:
            return None
        hasher.update(piece)
        offset += len(piece)
    return hasher.hexdigest()
