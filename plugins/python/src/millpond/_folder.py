"""A folder of media, as ``media-store`` of the interface: files by their names, and files by their content.

Content-addressed media lies at ``<root>/<ab>/<id>``, where ``id`` is the lower-case hexadecimal SHA-256 of the bytes
and ``ab`` its first two digits; a record in JSON lies beside it at ``<root>/<ab>/<id>.json``.
"""

from __future__ import annotations

import codecs
import errno
import itertools
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from typing import Final, Literal

from ._content import Access, Record, is_content_id, parse_record
from ._digests import Digests, FileVersion
from ._listing import MAX_READ, Entry, FileEntry, Listing, ListQuery, select
from .figures import Accounts
from .limits import LINKS, RECORD_BYTES, SMALL_BYTES, TEXT_BYTES

Key = tuple[Literal["content", "named"], str]
"""Name of one object: ``variant key`` of the interface."""

ObjectVersion = tuple[Literal["strong", "weak"], str]
"""Identifies a state of an object's bytes: ``variant version`` of the interface."""

Reason = Literal["not-found", "busy", "io", "out-of-bounds"]


class StoreError(Exception):
    """A failed call of the store: ``error-code`` and ``read-error`` of the interface."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Truncated(Exception):
    """The file has shrunk since it was opened, so that its answer cannot be sent whole."""


@dataclass(frozen=True)
class Variant:
    """Another representation of the same resource: ``record variant-info`` of the interface."""

    key: Key
    media_type: str
    content_coding: str | None


@dataclass(frozen=True)
class Info:
    """Metadata of an object, known without reading it: ``record info`` of the interface."""

    length_bytes: int
    media_type: str
    modified_ns: int | None
    created_ns: int | None
    digest: str | None
    version: ObjectVersion | None
    access: Access


class OpenFile:
    """An open file, which everyone who holds it closes; it is closed with the last of them."""

    def __init__(self, descriptor: int, length_bytes: int, accounts: Accounts) -> None:
        self.length_bytes = length_bytes
        self._descriptor = descriptor
        self._accounts = accounts
        self._holders = 1
        self._lock = threading.Lock()
        accounts.hold("open_files")

    def hold(self) -> OpenFile:
        """The same file, for one more holder."""
        with self._lock:
            self._holders += 1
        return self

    def close(self) -> None:
        """Ends one holder's part."""
        with self._lock:
            self._holders -= 1
            if self._holders > 0:
                return
        os.close(self._descriptor)
        self._accounts.hold("open_files", -1)

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from an offset on, one at least; it waits for the disk where it has to.

        :raises Truncated: when the file ends before the offset.
        """
        piece = os.pread(self._descriptor, count, offset)
        if not piece:
            raise Truncated("the file has shrunk since it was opened")
        return piece

    def read_now(self, offset: int, count: int) -> bytes | None:
        """The same of what the kernel has in memory; none where reading would wait for the disk.

        :raises Truncated: as :meth:`read`.
        """
        if _NOWAIT is None:
            return None
        buffer = bytearray(count)
        try:
            read = os.preadv(self._descriptor, [buffer], offset, _NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            # File systems without it say so; the plain read serves them.
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                return None
            raise
        if read == 0:
            raise Truncated("the file has shrunk since it was opened")
        return bytes(memoryview(buffer)[:read])


@dataclass
class Slice:
    """Bytes of an open file from an offset on, to an exact length. It holds the file open and no bytes."""

    file: OpenFile
    offset: int
    length_bytes: int

    def skip(self, count: int) -> None:
        """Leaves out the next bytes."""
        self.offset += count
        self.length_bytes -= count

    def close(self) -> None:
        """Ends the slice's part in the file."""
        self.file.close()


@dataclass
class MediaObject:
    """An open object: ``resource object`` of the interface."""

    file: OpenFile
    info: Info
    _folder: Folder
    _key: Key
    _record: Record | None

    def variants(self) -> list[Variant]:
        """The other representations that the store has of it."""
        if self._record is not None:
            variants = self._record.variants
            return [Variant(("content", other.id), other.media_type, other.content_coding) for other in variants]
        return self._folder.siblings(self._key[1], self.info.media_type)

    def read(self, offset: int, length_bytes: int) -> Slice:
        """A slice of the object's bytes. Nothing is read yet.

        :raises StoreError: when it would reach past the object's end.
        """
        if offset + length_bytes > self.file.length_bytes:
            raise StoreError("out-of-bounds")
        return Slice(self.file.hold(), offset, length_bytes)

    def close(self) -> None:
        """Ends the object's part in the file."""
        self.file.close()


class Folder:
    """A folder of media, opened once: whatever is asked for is looked up beneath that handle and cannot leave it.

    :raises OSError: when there is no such folder, or it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], accounts: Accounts) -> None:
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._accounts = accounts
        self.digests = Digests()

    def close(self) -> None:
        """Closes the folder, once no request needs it any more."""
        self.digests.wait()
        os.close(self._root)

    def open(self, key: Key) -> MediaObject:
        """Opens an object. It blocks on the file system, so it is no call for an event loop.

        :raises StoreError: when there is none, or it cannot be opened now.
        """
        kind, name = key
        try:
            return self._open_content(name) if kind == "content" else self._open_named(name)
        except OSError as error:
            raise StoreError(_reason(error)) from error

    def list_folder(self, folder: str, query: ListQuery) -> Listing:
        """Lists a folder, page by page; an empty path is the root.

        :raises StoreError: when there is no such folder, or it cannot be read.
        """
        if folder and not _is_served_by_name(folder):
            raise StoreError("not-found")
        prefix = f"{folder}/" if folder else ""
        try:
            page = select(query, self._entries(prefix, query))
        except OSError as error:
            raise StoreError(_reason(error)) from error
        return replace(page, entries=[self._entry(prefix, found.name) or found for found in page.entries])

    def _entries(self, prefix: str, query: ListQuery) -> Iterator[Entry]:
        """The entries of a folder that match, without their metadata where the order needs none."""
        descriptor = self._open_folder(prefix)
        try:
            if query.most == 0:
                return
            with os.scandir(descriptor) as entries:
                for count, found in enumerate(entries):
                    if count == MAX_READ:
                        raise OSError(errno.EIO, f"a folder has more than {MAX_READ} entries")
                    name = found.name
                    if not _is_unicode(name) or not query.matches(name) or not _is_served_by_name(prefix + name):
                        continue
                    is_folder = found.is_dir(follow_symlinks=False)
                    entry: Entry | None
                    if not query.needs_metadata and (is_folder or found.is_file(follow_symlinks=False)):
                        entry = Entry(name, None, None if is_folder else FileEntry(0, ""))
                    else:
                        entry = self._entry(prefix, name)
                    if entry is not None and not (entry.file is None and self._has_content(prefix, name)):
                        yield entry
        finally:
            os.close(descriptor)

    def _entry(self, prefix: str, name: str) -> Entry | None:
        """An entry with its metadata; none for what is neither a file nor a folder, or cannot be read."""
        try:
            descriptor = _open_beneath(self._root, os.fsencode(f"{prefix}{name}"))
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        modified_ns = max(found.st_mtime_ns, 0)
        if stat.S_ISDIR(found.st_mode):
            return Entry(name, modified_ns, None)
        if stat.S_ISREG(found.st_mode):
            return Entry(name, modified_ns, FileEntry(found.st_size, media_type_of(name)))
        return None

    def _open_folder(self, prefix: str) -> int:
        if not prefix:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        return _open_beneath(self._root, os.fsencode(prefix))

    def _has_content(self, prefix: str, name: str) -> bool:
        """Whether a folder belongs to the content store, by its name and its first entries."""
        if not _CONTENT_FOLDER.fullmatch(name):
            return False
        try:
            descriptor = self._open_folder(f"{prefix}{name}/")
        except OSError:
            return False
        try:
            with os.scandir(descriptor) as entries:
                first = [entry.name[:64] for entry in itertools.islice(entries, 4)]
        finally:
            os.close(descriptor)
        return any(is_content_id(file) and file.startswith(name) for file in first)

    def siblings(self, name: str, media_type: str) -> list[Variant]:
        """The files beside a named one that hold the same in another form: ``logo.svg.br`` of ``logo.svg``."""
        candidates: list[tuple[str, str, str | None]]
        if _is_compressible(media_type) and not name.lower().endswith(".svgz"):
            candidates = [(suffix, media_type, coding) for suffix, coding in _CODINGS]
        elif media_type in ("image/png", "image/jpeg", "image/gif"):
            candidates = [("avif", "image/avif", None), ("webp", "image/webp", None)]
        else:
            candidates = []
        found = []
        for suffix, of_type, coding in candidates:
            sibling = f"{name}.{suffix}"
            try:
                os.close(self._open_file(sibling)[0])
            except OSError:
                continue
            found.append(Variant(("named", sibling), of_type, coding))
        return found

    def _open_content(self, id_: str) -> MediaObject:
        if not is_content_id(id_):
            raise StoreError("not-found")
        path = f"{id_[:2]}/{id_}"
        descriptor, _ = self._open_file(f"{path}.json")
        try:
            # A record that goes on behind what is read is cut off, and so corrupt.
            record = parse_record(_read_at_most(descriptor, RECORD_BYTES))
        finally:
            os.close(descriptor)
        if record is None:
            raise StoreError("not-found")
        descriptor, found = self._open_file(path)
        if found.st_size != record.size_bytes:
            os.close(descriptor)
            raise StoreError("not-found")
        info = Info(
            length_bytes=found.st_size,
            media_type=record.media_type,
            modified_ns=max(found.st_mtime_ns, 0),
            created_ns=record.created_ns,
            digest=id_,
            version=None,
            access=record.access,
        )
        file = OpenFile(descriptor, found.st_size, self._accounts)
        return MediaObject(file, info, self, ("content", id_), record)

    def _open_named(self, name: str) -> MediaObject:
        if not _is_served_by_name(name):
            raise StoreError("not-found")
        descriptor, found = self._open_file(name)
        try:
            version = FileVersion.of(found)
            is_settled = version.is_settled()
            digest = self.digests.of(descriptor, version, is_settled)
            media_type = _with_charset(media_type_of(name), descriptor, found.st_size)
        except OSError:
            os.close(descriptor)
            raise
        info = Info(
            length_bytes=found.st_size,
            media_type=media_type,
            modified_ns=max(found.st_mtime_ns, 0),
            created_ns=None,
            digest=digest,
            version=_object_version(version, is_settled, digest),
            access="public",
        )
        file = OpenFile(descriptor, found.st_size, self._accounts)
        return MediaObject(file, info, self, ("named", name), None)

    def _open_file(self, path: str) -> tuple[int, os.stat_result]:
        """Opens a regular file: its descriptor, and what the system knows of it."""
        descriptor = _open_beneath(self._root, os.fsencode(path.encode()))
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "no regular file")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, found


def _object_version(version: FileVersion, is_settled: bool, digest: str | None) -> ObjectVersion:
    """The version of a named file: of a small one its digest, and else what its file system tells of it.

    A digest that is learnt later is never part of it, since clients have its tag by then.
    """
    is_small = version.length_bytes <= SMALL_BYTES
    if is_small and digest is not None:
        return "strong", digest[:32]
    is_strong = is_settled and not is_small
    return "strong" if is_strong else "weak", version.text(is_strong)


def media_type_of(name: str) -> str:
    """The media type by a name's extension."""
    stem, _, extension = name.rpartition("/")[2].rpartition(".")
    return _MEDIA_TYPES.get(extension.lower() if stem else "", "application/octet-stream")


def _with_charset(media_type: str, descriptor: int, length_bytes: int) -> str:
    """The same with ``charset=utf-8``, where it is text and known to be in UTF-8.

    Text in other encodings shows it as soon as it leaves ASCII; UTF-16 has U+0000 in it, and ISO-2022-JP ESC.
    """
    if not media_type.startswith("text/") or ";" in media_type:
        return media_type
    beginning = _read_at_most(descriptor, min(length_bytes, TEXT_BYTES))
    if len(beginning) < min(length_bytes, TEXT_BYTES):
        return media_type
    is_whole = len(beginning) == length_bytes
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning, final=is_whole)
    except UnicodeDecodeError:
        return media_type
    is_utf8 = "\0" not in text and "\x1b" not in text and (is_whole or not text.isascii())
    return f"{media_type}; charset=utf-8" if is_utf8 else media_type


_NOWAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)

# A handle on a folder that is only passed through needs no right to list it, where the system can do without.
_PASS: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# Opening a named pipe would else wait for a writer, for ever.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_CONTENT_FOLDER: Final = re.compile(r"[0-9a-f]{2}")

_CODINGS: Final = (("br", "br"), ("zst", "zstd"), ("gz", "gzip"))

_COMPRESSIBLE: Final = {
    "application/json",
    "application/javascript",
    "application/xml",
    "application/yaml",
    "application/rtf",
    "application/wasm",
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "audio/mpegurl",
    "audio/x-mpegurl",
    "audio/scpls",
    "application/x-subrip",
    "image/bmp",
    "image/x-icon",
    "model/gltf-binary",
    "model/obj",
    "model/stl",
    "font/ttf",
    "font/otf",
    "font/collection",
    "application/vnd.ms-fontobject",
}


def _read_media_types() -> dict[str, str]:
    types: dict[str, str] = {}
    for line in resources.files(__package__).joinpath("media_types.txt").read_text("ascii").splitlines():
        if not line.startswith("#"):
            extension, media_type = line.split(" ")
            types[extension] = media_type
    return types


_MEDIA_TYPES: Final = _read_media_types()


def _open_beneath(root: int, path: bytes) -> int:
    """Opens a path beneath a folder, segment by segment; a symbolic link is followed as long as it stays beneath.

    The kernel follows none: each is read and resolved here, so that nothing can be exchanged between look and leap.
    """
    folders: list[int] = []
    segments = deque(path.split(b"/"))
    links = 0
    try:
        while segments:
            segment = segments.popleft()
            here = folders[-1] if folders else root
            if segment in (b"", b"."):
                continue
            if segment == b"..":
                if not folders:
                    raise FileNotFoundError(errno.ENOENT, "outside the folder")
                os.close(folders.pop())
                continue
            try:
                if not any(segments):
                    # A path that ends in a slash is a folder.
                    return os.open(segment, _READ | (os.O_DIRECTORY if segments else 0), dir_fd=here)
                folders.append(os.open(segment, _PASS, dir_fd=here))
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                    raise
                links += 1
                if links > LINKS:
                    raise
                target = _read_link(segment, here, error)
                if target.startswith(b"/"):
                    raise FileNotFoundError(errno.ENOENT, "outside the folder") from error
                segments.extendleft(reversed(target.split(b"/")))
        raise FileNotFoundError(errno.ENOENT, "a folder is no file")
    finally:
        for folder in folders:
            os.close(folder)


def _read_link(segment: bytes, folder: int, error: OSError) -> bytes:
    try:
        return os.readlink(segment, dir_fd=folder)
    except OSError:
        # It is no link: what was wrong with it first is what is wrong with it.
        raise error from None


def _read_at_most(descriptor: int, most_bytes: int) -> bytes:
    data = b""
    while len(data) < most_bytes:
        piece = os.pread(descriptor, most_bytes - len(data), len(data))
        if not piece:
            break
        data += piece
    return data


def _is_unicode(name: str) -> bool:
    """Whether a file's name is UTF-8. Other bytes stand in it as surrogates."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def _is_served_by_name(name: str) -> bool:
    """Whether a path may name a file.

    Hidden files are none of a visitor's, and what lies in the content store is had by its id alone, under the rules
    that its record sets.
    """
    segments = name.split("/")
    for segment in segments:
        if segment in ("", ".", "..") or "\0" in segment:
            return False
        # One dot hides; more of them begin a title. `.well-known` is there to be found (RFC 8615).
        if segment.startswith(".") and not segment.startswith("..") and segment != ".well-known":
            return False
    # The store may lie in a folder of what is served.
    for folder, file in itertools.pairwise(segments):
        id_ = file[:64]
        if is_content_id(id_) and id_.startswith(folder):
            return False
    return True


def _is_compressible(media_type: str) -> bool:
    """Whether a type is of text, or of other data that is not compressed by itself, as films and most pictures are."""
    essence = media_type.partition(";")[0]
    return essence.startswith("text/") or essence.endswith(("+xml", "+json", "+yaml")) or essence in _COMPRESSIBLE


def _reason(error: OSError) -> Reason:
    match error.errno:
        case errno.EMFILE | errno.ENFILE | errno.ENOMEM:
            return "busy"
        case errno.EIO | errno.ESTALE | errno.ETIMEDOUT:
            return "io"
        case _:
            # No entry, no permission, no folder on the way, too many links, a long name: the object counts as missing.
            # The reason would tell a client too much.
            return "not-found"
