"""Limits of one request and of one application. Each has a name here, with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PIECE_BYTES: Final = 64 * 1024
"""Bytes of a body that are read at a time; a body that fits is read with its answer."""

TARGET_BYTES: Final = 8 * 1024
"""Longest request target (RFC 9110 section 4.1 asks for 8000 at least): 414 beyond."""

FIELDS_BYTES: Final = 16 * 1024
"""Sum of a request's field names and values: 431 beyond."""

FIELD_LINES: Final = 100
"""Most field lines of a request: 431 beyond."""

HANDLES: Final = 64
"""Objects and streams that one request's guest may hold, each of which may hold an open file."""

LIFTED_BYTES: Final = 128 * 1024
"""Bytes that one request's guest makes the host copy out of it."""

LIFTED_OVERHEAD_BYTES: Final = 96
"""Overhead of a field line or a body part, in bytes."""

RECORD_BYTES: Final = 16 * 1024
"""Largest record beside stored media that is read; a real one has some 150 bytes."""

TEXT_BYTES: Final = 64 * 1024
"""Most bytes of a named text that are looked at for its charset."""

VARIANTS: Final = 16
"""Most variants of one media: formats times codings."""

LINKS: Final = 40
"""Most symbolic links on the way to one file, as in the Linux kernel."""

DIGEST_BYTES: Final = 64 * 1024 * 1024
"""Largest named file that is read for its digest."""

SMALL_BYTES: Final = 12 * 1024
"""Largest named file whose digest is computed when it is opened: reading it takes some microseconds."""

DIGESTS: Final = 10_000
"""Digests of named files that are kept, of some 200 bytes each."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits that differ from application to application."""

    memory_bytes: int = 1024 * 1024
    """Linear memory of one request's instance, all its memories together; the package's component has 64 KiB."""

    memories: int = 1
    """Linear memories of one instance. wasmtime limits each by itself, so each gets its share of `memory_bytes`."""

    tables: int = 8
    """Tables of one instance."""

    table_elements: int = 4096
    """Elements of each table, of 8 bytes."""

    core_instances: int = 32
    """Core instances of one request's component: the one of the package has a handful, composed ones some more."""

    fuel: int = 100_000_000
    """CPU limit of one request's instance, in wasmtime's fuel: about one unit for an instruction. The component of the
    package takes 60,000."""

    requests: int = 512
    """Requests in flight: one more is told to come again at once."""

    threads: int = 8
    """Threads in which the ASGI application runs instances and reads what is not in the page cache."""

    send_timeout_seconds: float = 120.0
    """How long the server may take to accept one piece of an ASGI body before the client is given up."""
