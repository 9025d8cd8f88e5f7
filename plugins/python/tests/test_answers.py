"""What is answered to what, over a socket, by each server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

import pytest
from conftest import KEYS, NOISE, PRIVATE, Served


def strong_tag(served: Served) -> str:
    """The tag of the file once its next state would have another one: it was written just now."""
    while True:
        tag = served.ask("/media/noise.bin", method="HEAD").field("etag")
        assert tag is not None
        if not tag.startswith("W/"):
            return tag


def test_whole(served: Served) -> None:
    etag = strong_tag(served)
    answer = served.ask("/media/noise.bin")
    assert (answer.status, answer.body) == (200, NOISE)
    assert answer.field("content-length") == str(len(NOISE))
    assert answer.field("content-type") == "application/octet-stream"
    assert answer.field("etag") == etag
    assert answer.field("last-modified") == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert answer.field("cache-control") == "public, no-cache"
    assert answer.field("x-content-type-options") == "nosniff"
    assert answer.field("date") is not None


def test_names_that_are_encoded(served: Served) -> None:
    answer = served.ask("/media/a%20b/%C3%BC.gif?v=%20")
    assert (answer.status, answer.body) == (200, b"GIF89a")
    assert answer.field("content-type") == "image/gif"


def test_head_and_empty(served: Served) -> None:
    head = served.ask("/media/noise.bin", method="HEAD")
    assert (head.status, head.body, head.field("content-length")) == (200, b"", str(len(NOISE)))
    empty = served.ask("/media/empty.txt")
    assert (empty.status, empty.body, empty.field("content-length")) == (200, b"", "0")


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 99), (65_535, 65_536), (1, 299_999), (200_000, 299_999)])
def test_a_range(served: Served, first: int, last: int) -> None:
    answer = served.ask("/media/noise.bin", f"range: bytes={first}-{last}")
    assert (answer.status, answer.body) == (206, NOISE[first : last + 1])
    assert answer.field("content-range") == f"bytes {first}-{last}/{len(NOISE)}"
    assert answer.field("content-length") == str(last + 1 - first)


def test_several_ranges(served: Served) -> None:
    answer = served.ask("/media/noise.bin", "range: bytes=0-9,100000-200000")
    media_type, _, boundary = (answer.field("content-type") or "").partition("; boundary=")
    assert (answer.status, media_type) == (206, "multipart/byteranges")
    parts = [(0, 9), (100_000, 200_000)]
    body = b"".join(
        b"%s--%s\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s"
        % (b"\r\n" if first else b"", boundary.encode(), first, last, len(NOISE), NOISE[first : last + 1])
        for first, last in parts
    )
    assert answer.body == body + b"\r\n--%s--\r\n" % boundary.encode()
    assert answer.field("content-length") == str(len(answer.body))


def test_a_range_that_cannot_be_had(served: Served) -> None:
    answer = served.ask("/media/noise.bin", "range: bytes=300000-")
    assert (answer.status, answer.field("content-range")) == (416, f"bytes */{len(NOISE)}")


def test_not_modified(served: Served) -> None:
    etag = strong_tag(served)
    answer = served.ask("/media/noise.bin", f"if-none-match: {etag}")
    assert (answer.status, answer.body, answer.field("etag")) == (304, b"", etag)
    assert answer.field("content-length") is None
    changed = served.ask("/media/noise.bin", 'if-none-match: "other"')
    assert (changed.status, changed.body) == (200, NOISE)


def test_nothing_there(served: Served) -> None:
    answer = served.ask("/media/none.txt")
    assert (answer.status, answer.error) == (404, "Media not found")
    assert answer.field("cache-control") == "public, max-age=7", "as it is set"
    assert answer.field("content-type") == "application/json"
    assert served.ask("/media/noise.bin", method="DELETE").field("allow") == "GET, HEAD, OPTIONS"
    assert served.ask("/media/noise.bin", method="OPTIONS").status == 204


@pytest.mark.parametrize(
    "target",
    ["/media/../secret.txt", "/media/%2e%2e/secret.txt", "/media/..%2fsecret.txt", "/media//etc/passwd", "/media/.env"],
)
def test_what_climbs_is_not_there(served: Served, target: str) -> None:
    answer = served.ask(target)
    assert answer.status in (400, 404)
    assert b"secret" not in answer.body


def sign(path: str, expires: int) -> str:
    """A signed path, as `format/src/signature.rs` says."""
    text = "".join(f"{part}\n" for part in ("millpond-1", "GET", path, expires, "k1", ""))
    made = hmac.digest(bytes.fromhex(KEYS["k1"]), text.encode(), "sha256")
    return f"{path}?exp={expires}&key=k1&sig={base64.urlsafe_b64encode(made).decode().rstrip('=')}"


def test_signed_urls(served: Served) -> None:
    path = f"/api/media/{hashlib.sha256(PRIVATE).hexdigest()}"
    assert served.ask(path).status == 401
    signed = sign(path, int(time.time()) + 3600)
    answer = served.ask(signed)
    assert (answer.status, answer.body, answer.field("content-type")) == (200, PRIVATE, "image/gif")
    assert served.ask(signed[:-2] + "xx").status == 403
    assert served.ask(sign(path, 1)).status == 403


def test_heads_that_are_too_large(served: Served) -> None:
    assert served.ask("/media/" + "a" * 8200).status == 414
    assert served.ask("/media/small.txt", "x-a: " + "a" * 17_000).status == 431
    assert served.ask("/media/small.txt", *(f"x-{number}: a" for number in range(101))).status == 431
    # wsgiref has a limit of its own on the number of lines.
    assert served.figures()["rejected"] in (2, 3)


def test_all_is_given_back(served: Served) -> None:
    for _ in range(3):
        assert served.ask("/media/noise.bin").status == 200
        assert served.ask("/media/none.txt").status == 404
    assert served.figures() == {
        "open_files": 0,
        "requests_in_flight": 0,
        "buffer_bytes": 0,
        "completed": 6,
        "aborted": 0,
        "rejected": 0,
        "limited": 0,
        "failed": 0,
    }
