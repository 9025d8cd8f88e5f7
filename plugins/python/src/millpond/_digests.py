"""Digests of named files: computed once, and kept for as long as the file stays as it is.

Content-addressed media has its digest for a name. A named file's costs reading it. That of a small file is computed
when it is opened. A larger one is read in the background: no request waits, and the first ones are answered without.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from .limits import DIGEST_BYTES, DIGESTS, PIECE_BYTES, SMALL_BYTES

# File systems have the time of a clock that ticks, every 10 ms at the longest, so two changes within a tick look alike.
_TICKS_NS: Final = 20_000_000

# Windows tells here when the file was created.
_TELLS_CHANGES: Final = os.name == "posix"


@dataclass(frozen=True)
class FileVersion:
    """Identifies a state of a file.

    It includes the change time, since a modification time can be set back.
    """

    device: int
    inode: int
    length_bytes: int
    modified_ns: int
    changed_ns: int

    @staticmethod
    def of(found: os.stat_result) -> FileVersion:
        """The version of what the system knows of a file."""
        return FileVersion(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def is_settled(self) -> bool:
        """Whether every later version would be told from this one. Asked before anything of it is read."""
        return _TELLS_CHANGES and time.time_ns() - self.changed_ns > _TICKS_NS

    def text(self, is_settled: bool) -> str:
        """Itself as text, without the device, whose number may be another one when it is mounted again."""
        told = (is_settled, self.inode, self.length_bytes, self.modified_ns, self.changed_ns)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


class Digests:
    """The digests of one folder's named files."""

    def __init__(self) -> None:
        self._kept: OrderedDict[FileVersion, str] = OrderedDict()
        self._lock = threading.Lock()
        # One file is read at a time; others have their turn when they are asked for again.
        self._learning: threading.Thread | None = None

    def of(self, descriptor: int, version: FileVersion, is_settled: bool) -> str | None:
        """The file's SHA-256 in hexadecimal, if it is known; if it is not, it will be. A small file is read at once."""
        with self._lock:
            digest = self._kept.get(version)
            if digest is not None:
                self._kept.move_to_end(version)
                return digest
        if version.length_bytes <= SMALL_BYTES:
            digest = _digest(descriptor, version)
            if digest is not None and is_settled:
                with self._lock:
                    self._keep(version, digest)
            return digest
        if is_settled and version.length_bytes <= DIGEST_BYTES:
            self._begin_to_learn(descriptor, version)
        return None

    def _begin_to_learn(self, descriptor: int, version: FileVersion) -> None:
        with self._lock:
            if self._learning is not None:
                return
            try:
                own = os.dup(descriptor)
            except OSError:
                # No descriptor is left for it; it has its turn later.
                return
            learning = (own, version)
            self._learning = threading.Thread(target=self._learn, args=learning, name="millpond-digest", daemon=True)
            try:
                self._learning.start()
            except RuntimeError:
                self._learning = None
                os.close(own)

    def wait(self) -> None:
        """Waits until no file is being read."""
        learning = self._learning
        if learning is not None:
            learning.join()

    def _learn(self, descriptor: int, version: FileVersion) -> None:
        try:
            digest = _digest(descriptor, version)
            if digest is not None:
                with self._lock:
                    self._keep(version, digest)
        except OSError:
            # The file gets no digest. The requests that read it report the error.
            pass
        finally:
            os.close(descriptor)
            with self._lock:
                self._learning = None

    def _keep(self, version: FileVersion, digest: str) -> None:
        self._kept[version] = digest
        if len(self._kept) > DIGESTS:
            self._kept.popitem(last=False)


def _digest(descriptor: int, version: FileVersion) -> str | None:
    """Reads by place, since others read by the same position. None where the file has changed meanwhile."""
    hasher = hashlib.sha256()
    offset = 0
    while offset < version.length_bytes:
        piece = os.pread(descriptor, min(PIECE_BYTES, version.length_bytes - offset), offset)
        if not piece:
            return None
        hasher.update(piece)
        offset += len(piece)
    return hasher.hexdigest() if FileVersion.of(os.fstat(descriptor)) == version else None
