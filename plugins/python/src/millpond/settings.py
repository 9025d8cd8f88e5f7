"""What the component is told of how to answer: typed here, strings by key for it (``wit/world.wit``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


class SettingError(ValueError):
    """A setting cannot be used; the message says which and why, and never shows a secret."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the component answers. What is left out has the component's default, as told here.

    :raises SettingError: when one of them cannot be used.
    """

    files_at: str = "/media"
    """The path under which named files are served: ``/``, or segments without a ``/`` at the end."""

    cors_origins: Sequence[str] | None = None
    """Whose pages may read answers, as in ``https://a.example``; all of them where it is left out."""

    cors_max_age_seconds: int | None = None
    """How long a preflight's answer holds; a day."""

    timing_allow_origin: str | None = None
    """``Timing-Allow-Origin``, none where it is empty; ``*``."""

    resource_policy: str | None = None
    """``Cross-Origin-Resource-Policy``, none where it is empty; ``cross-origin``."""

    document_policy: str | None = None
    """``Content-Security-Policy`` of types that a browser runs script in, none where it is empty; a sandbox."""

    cache_content: str | None = None
    """``Cache-Control`` of media by content; a year, immutable."""

    cache_files: str | None = None
    """``Cache-Control`` of named files; asked for again."""

    cache_missing_seconds: int | None = None
    """How long it holds that there is no such media; 5."""

    signing_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secrets that signed URLs are made with, by id: 16 bytes or more in hexadecimal."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "files_at", _path(self.files_at))
        if isinstance(self.cors_origins, str):
            raise SettingError("cors-origins: a list of origins, not one text")
        for origin in self.cors_origins or ():
            if not _ORIGIN.fullmatch(origin):
                raise SettingError("cors-origins: an origin is `scheme://host` or `scheme://host:port`, in lower case")
        for name in _TEXTS:
            text = getattr(self, name)
            if text is not None and (not _FIELD_VALUE.fullmatch(text) or text.strip() != text):
                raise SettingError(f"{_key(name)}: a field's value is visible ASCII and spaces")
        for name in _SECONDS:
            seconds = getattr(self, name)
            if seconds is not None and not 0 <= seconds < 2**32:
                raise SettingError(f"{_key(name)}: seconds are from 0 to 4294967295")
        for key, secret in self.signing_keys.items():
            if not _KEY_ID.fullmatch(key) or not _SECRET.fullmatch(secret):
                raise SettingError(
                    "signing-keys: a key has an id of letters, digits, `-` and `_`, and 16 bytes or more in hexadecimal"
                )

    @classmethod
    def parse(cls, pairs: Mapping[str, str]) -> Settings:
        """Settings from strings by key, as ``wit/world.wit`` lists them.

        :raises SettingError: when there is no such key, or its value cannot be used.
        """
        values: dict[str, object] = {}
        for key, text in pairs.items():
            match key:
                case "files-at":
                    values["files_at"] = text
                case "cors-origins":
                    values["cors_origins"] = None if text == "*" else text.replace(",", " ").split()
                case "cors-max-age" | "cache-missing":
                    if not (text.isascii() and text.isdigit()):
                        raise SettingError(f"{key}: a number of seconds")
                    values[f"{key.replace('-', '_')}_seconds"] = int(text)
                case "signing-keys":
                    keys = [entry.partition(":") for entry in text.replace(",", " ").split()]
                    values["signing_keys"] = {key: secret for key, _, secret in keys}
                case _ if key.replace("-", "_") in _TEXTS:
                    values[key.replace("-", "_")] = text
                case _:
                    raise SettingError(f"{key}: there is no such setting")
        return cls(**values)  # type: ignore[arg-type]

    def all(self) -> list[tuple[str, str]]:
        """All but secrets, by key."""
        given: list[tuple[str, str | None]] = [("files-at", self.files_at)]
        if self.cors_origins is not None:
            given.append(("cors-origins", " ".join(self.cors_origins)))
        given += [(_key(name), getattr(self, name)) for name in _TEXTS]
        for name in _SECONDS:
            seconds = getattr(self, name)
            given.append((_key(name), None if seconds is None else str(seconds)))
        return [(key, value) for key, value in given if value is not None]

    def get(self, key: str) -> str | None:
        """One of them, which may be a secret."""
        if key == "signing-keys":
            return " ".join(f"{id_}:{secret}" for id_, secret in self.signing_keys.items())
        return dict(self.all()).get(key)


_TEXTS: Final = (
    "timing_allow_origin", "resource_policy", "document_policy", "cache_content", "cache_files",
)  # fmt: skip
_SECONDS: Final = ("cors_max_age_seconds", "cache_missing_seconds")

_FIELD_VALUE: Final = re.compile(r"[ -~]*")
_ORIGIN: Final = re.compile(r"[a-z0-9.+:\[\]-]+://[a-z0-9.+:\[\]-]+")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
_SECRET: Final = re.compile(r"(?:[0-9a-fA-F]{2}){16,}")
_PATH: Final = re.compile(r"/[!-~]*")
_CONTENT: Final = re.compile(r"/api/media(?:/|$)")


def _key(name: str) -> str:
    return name.removesuffix("_seconds").replace("_", "-")


def _path(text: str) -> str:
    if not _PATH.fullmatch(text) or "//" in text or any(mark in text for mark in "?#%\\"):
        raise SettingError("files-at: a path to serve files at begins with `/` and has no `?`, `#`, `%` or space")
    if _CONTENT.match(text):
        raise SettingError("files-at: `/api/media` is where media is served by its content; name another path")
    return text.rstrip("/") or "/"
