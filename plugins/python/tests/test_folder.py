"""The store: what is opened, and what never is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import put, store

from millpond import Truncated
from millpond._folder import Folder, MediaObject, StoreError, Variant, media_type_of
from millpond.figures import Accounts


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    media = tmp_path / "media"
    put(tmp_path, "secret.txt", b"secret")
    put(media, "a.gif", b"GIF89a")
    put(media, ".env", b"secret")
    put(media, "b/c d.mp4", b"")
    accounts = Accounts()
    folder = Folder(media, accounts)
    yield folder
    folder.close()
    assert accounts.figures()["open_files"] == 0


def contents(found: MediaObject) -> bytes:
    with_bytes = found.read(0, found.info.length_bytes)
    try:
        return with_bytes.file.read(0, 100) if found.info.length_bytes else b""
    finally:
        with_bytes.close()
        found.close()


def test_files_by_name(folder: Folder) -> None:
    found = folder.open(("named", "a.gif"))
    assert (found.info.length_bytes, found.info.media_type, found.info.access) == (6, "image/gif", "public")
    assert contents(found) == b"GIF89a"
    assert found.info.digest == hashlib.sha256(b"GIF89a").hexdigest(), "a small one is known at once"
    assert contents(folder.open(("named", "b/c d.mp4"))) == b""


def strong_version(folder: Folder, name: str) -> tuple[str, str | None]:
    """The version of a file once its next one would be another, and its digest once that is known, where it will be."""
    while True:
        found = folder.open(("named", name))
        found.close()
        assert found.info.version is not None
        kind, text = found.info.version
        if kind == "strong" and found.info.digest is not None:
            return text, found.info.digest
        folder.digests.wait()


@pytest.mark.parametrize("length", [6, 20_000])
def test_contents_of_one_length_and_modification_time_were_one_version(
    folder: Folder, tmp_path: Path, length: int
) -> None:
    media = tmp_path / "media"
    contents = [bytes([place]) * length for place in range(3)]
    path = put(media, "a.bin", contents[0])
    versions = [strong_version(folder, "a.bin")]
    put(media, "a.bin", contents[1])
    versions.append(strong_version(folder, "a.bin"))
    put(media, "b.bin", contents[2]).rename(path)
    versions.append(strong_version(folder, "a.bin"))
    assert len({text for text, _ in versions}) == 3
    assert [digest for _, digest in versions] == [hashlib.sha256(content).hexdigest() for content in contents]
    assert strong_version(folder, "a.bin") == versions[-1], "the same for as long as the file is"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt", "b/../../secret.txt", "/etc/passwd", "b/../a.gif", "./a.gif", "b//c d.mp4", "b\\c d.mp4",
        "a.gif/", "a.gif/x", "b", "", ".", "..", ".env", "a.gif\0", ".well-known/.env", "a" * 5000, "\N{PILE OF POO}",
    ],
)  # fmt: skip
def test_nothing_outside_the_root_or_hidden_is_opened(folder: Folder, name: str) -> None:
    with pytest.raises(StoreError, match="not-found"):
        folder.open(("named", name))


@pytest.mark.parametrize(
    "name", ["A: B.mkv", "a\\b", "a\n\x85b", "...And Justice for All.mp3", "..a", ".well-known/x.txt"]
)
def test_titles_with_the_marks_of_other_systems_or_dots_before_them_are_names(
    folder: Folder, tmp_path: Path, name: str
) -> None:
    put(tmp_path / "media", name, b"x")
    assert contents(folder.open(("named", name))) == b"x"


@pytest.mark.parametrize(
    ("content", "is_utf8"),
    [
        (b"", True),
        (b"plain", True),
        ("naïve".encode(), True),
        (b"a" * 65_535 + "é".encode() + b"a", False),
        ("é".encode() + b"a" * 100_000, True),
        (b"a" * 100_000, False),
        ("naïve".encode("latin-1"), False),
        ("plain".encode("utf-16-le"), False),
        ("テ".encode("iso-2022-jp"), False),
    ],
)
def test_a_text_says_its_charset_where_it_is_known(
    folder: Folder, tmp_path: Path, content: bytes, is_utf8: bool
) -> None:
    put(tmp_path / "media", "a.txt", content)
    found = folder.open(("named", "a.txt"))
    assert found.info.media_type == ("text/plain; charset=utf-8" if is_utf8 else "text/plain")
    found.close()


def test_a_link_is_followed_within_the_root_only(folder: Folder, tmp_path: Path) -> None:
    media = tmp_path / "media"
    links = {
        "inside.gif": "a.gif",
        "b/up.gif": "../a.gif",
        "folder": "b",
        "relative": "../secret.txt",
        "absolute": str(tmp_path / "secret.txt"),
        "into": str(media / "a.gif"),
        "up": "..",
        "b/upup": "../..",
        "loop": "loop",
        "dangling": "none",
        "to-folder": "b/",
    }
    for name, target in links.items():
        (media / name).symlink_to(target)
    for name in ("inside.gif", "b/up.gif"):
        assert contents(folder.open(("named", name))) == b"GIF89a", name
    assert contents(folder.open(("named", "folder/c d.mp4"))) == b""
    for name in ("relative", "absolute", "into", "up/secret.txt", "b/upup/secret.txt", "loop", "dangling", "to-folder"):
        with pytest.raises(StoreError, match="not-found"):
            folder.open(("named", name))


def test_a_link_in_place_of_stored_media_does_not_lead_out(folder: Folder, tmp_path: Path) -> None:
    id_ = store(tmp_path / "media", b"secret")
    stored = tmp_path / "media" / id_[:2] / id_
    stored.unlink()
    stored.symlink_to("../../secret.txt")
    with pytest.raises(StoreError, match="not-found"):
        folder.open(("content", id_))


def test_a_named_pipe_is_no_object_and_does_not_hang(folder: Folder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "media/pipe")
    with pytest.raises(StoreError, match="not-found"):
        folder.open(("named", "pipe"))


def test_content_is_not_served_by_name(folder: Folder, tmp_path: Path) -> None:
    id_ = store(tmp_path / "media", b"private", access="private")
    for name in (f"{id_[:2]}/{id_}", f"{id_[:2]}/{id_}.json"):
        with pytest.raises(StoreError, match="not-found"):
            folder.open(("named", name))
    assert folder_open_access(folder, id_) == "private"


def folder_open_access(folder: Folder, id_: str) -> str:
    found = folder.open(("content", id_))
    found.close()
    return found.info.access


def test_content_without_a_sound_record_is_not_served(folder: Folder, tmp_path: Path) -> None:
    id_ = store(tmp_path / "media", b"12345")
    record = tmp_path / "media" / id_[:2] / f"{id_}.json"
    sound = json.loads(record.read_text())
    variant = {"id": id_, "media_type": "image/avif"}
    damages: list[dict[str, object]] = [
        {"access": "secret"},
        {"access": "Public"},
        {"size": 6},
        {"size": -5},
        {"size": 5.0},
        {"size": "5"},
        {"size": True},
        {"created": "2026-13-02T03:04:05Z"},
        {"created": "2026-02-30T03:04:05Z"},
        {"created": "2026-01-02 03:04:05"},
        {"created": 5},
        {"media_type": "image/gif\r\nx: y"},
        {"media_type": "imagé/gif"},
        {"variants": [variant] * 17},
        {"variants": [variant | {"id": id_.upper()}]},
        {"variants": [variant | {"content_coding": "b\nr"}]},
        {"variants": {}},
    ]
    damaged: list[str | bytes] = [
        "",
        "{}",
        "null",
        "[" * 100_000,
        json.dumps(sound)[1:],
        json.dumps(sound).encode("utf-16"),
        b"\xff",
        " " * 20_000 + json.dumps(sound),
        json.dumps(sound)[:-1] + ', "size": 5}',
        *(json.dumps(sound | damage) for damage in damages),
    ]
    for text in damaged:
        record.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(StoreError, match="not-found"):
            folder.open(("content", id_))
    record.write_text(json.dumps(sound | {"unknown": 1, "variants": [variant]}))
    found = folder.open(("content", id_))
    assert found.info.created_ns == 1_767_323_045_000_000_000
    assert found.variants() == [Variant(("content", id_), "image/avif", None)]
    found.close()
    for other in ("", "ab", "../secret.txt", id_.upper(), f"{id_}/"):
        with pytest.raises(StoreError, match="not-found"):
            folder.open(("content", other))


def test_siblings(folder: Folder, tmp_path: Path) -> None:
    media = tmp_path / "media"
    for name in ("a.gif.webp", "l.svg", "l.svg.br", "l.svg.gz", "l.svg.webp", "z.svgz", "z.svgz.gz"):
        put(media, name, b"x")
    (media / "l.svg.zst").mkdir()
    picture = folder.open(("named", "a.gif"))
    assert picture.variants() == [Variant(("named", "a.gif.webp"), "image/webp", None)]
    picture.close()
    drawing = folder.open(("named", "l.svg"))
    codings = [(variant.media_type, variant.content_coding) for variant in drawing.variants()]
    assert codings == [("image/svg+xml", "br"), ("image/svg+xml", "gzip")]
    drawing.close()
    compressed = folder.open(("named", "z.svgz"))
    assert compressed.variants() == []
    compressed.close()


def test_a_file_that_shrinks_is_an_error_and_no_end(folder: Folder, tmp_path: Path) -> None:
    found = folder.open(("named", "a.gif"))
    slice_ = found.read(0, 6)
    os.truncate(tmp_path / "media/a.gif", 3)
    assert slice_.file.read(0, 6) == b"GIF"
    with pytest.raises(Truncated):
        slice_.file.read(3, 3)
    with pytest.raises(StoreError, match="out-of-bounds"):
        found.read(1, 6)
    slice_.close()
    found.close()


def test_media_types() -> None:
    for name, media_type in {
        "a.PNG": "image/png",
        "a.m3u8": "application/vnd.apple.mpegurl",
        "a.ts": "video/mp2t",
        "....mp3": "audio/mpeg",
        ".mp3": "application/octet-stream",
        "a.tar.gz": "application/gzip",
        "a": "application/octet-stream",
        "a.": "application/octet-stream",
        "a.unknown": "application/octet-stream",
    }.items():
        assert media_type_of(name) == media_type, name
