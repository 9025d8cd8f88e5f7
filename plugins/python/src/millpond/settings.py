"""Settings of the component (``wit/settings.wit``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


class SettingError(ValueError):
    """A setting cannot be used; the message says which and why, and never shows a secret."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the component. It has a default for each.

    :raises SettingError: when one of them cannot be used.
    """

    mount_path: str = "/media"
    """Path under which named files are served: ``/``, or segments without a ``/`` at the end."""

    cors_origins: Sequence[str] | None = None
    """Origins whose pages may read responses, as in ``https://a.example``. Default: every origin."""

    cors_max_age_seconds: int | None = None
    """Lifetime of a preflight response. Default: a day."""

    timing_allow_origin: str | None = None
    """``Timing-Allow-Origin``; empty to omit it. Default: ``*``."""

    cross_origin_resource_policy: str | None = None
    """``Cross-Origin-Resource-Policy``; empty to omit it. Default: ``cross-origin``."""

    content_security_policy: str | None = None
    """``Content-Security-Policy`` of types that can run scripts; empty to omit it. Default: a sandbox."""

    cache_content: str | None = None
    """``Cache-Control`` of media by content id. Default: a year, immutable."""

    cache_files: str | None = None
    """``Cache-Control`` of named files. Default: ``public, no-cache``."""

    negative_ttl_seconds: int | None = None
    """Lifetime of the response that media does not exist. Default: 5."""

    browse: bool | None = None
    """Whether folders are listed: as pages for browsers, and in JSON for others. Default: ``True``."""

    signing_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secrets that sign URLs, by id: at least 16 bytes in hexadecimal."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mount_path", _path(self.mount_path))
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
        """Parses settings from text by key, as on the command line.

        :raises SettingError: when there is no such key, or its value cannot be used.
        """
        values: dict[str, object] = {}
        for key, text in pairs.items():
            match key:
                case "mount-path":
                    values["mount_path"] = text
                case "cors-origins":
                    values["cors_origins"] = None if text == "*" else text.replace(",", " ").split()
                case "cors-max-age" | "negative-ttl":
                    if not (text.isascii() and text.isdigit()):
                        raise SettingError(f"{key}: a number of seconds")
                    values[f"{key.replace('-', '_')}_seconds"] = int(text)
                case "browse":
                    if text not in ("on", "off"):
                        raise SettingError("browse: on or off")
                    values["browse"] = text == "on"
                case "signing-keys":
                    keys = [entry.partition(":") for entry in text.replace(",", " ").split()]
                    values["signing_keys"] = {key: secret for key, _, secret in keys}
                case _ if key.replace("-", "_") in _TEXTS:
                    values[key.replace("-", "_")] = text
                case _:
                    raise SettingError(f"{key}: there is no such setting")
        return cls(**values)  # type: ignore[arg-type]

    def record(self) -> tuple[Any, ...]:
        """``record settings`` of the interface."""
        return (
            self.mount_path,
            self.cors_origins,
            self.cors_max_age_seconds,
            self.timing_allow_origin,
            self.cross_origin_resource_policy,
            self.content_security_policy,
            self.cache_content,
            self.cache_files,
            self.negative_ttl_seconds,
            self.browse,
            None,  # This host accepts no uploads.
        )

    def keys(self) -> list[tuple[str, bytes]]:
        """``signing-keys`` of the interface. They are secrets."""
        return [(key, bytes.fromhex(secret)) for key, secret in self.signing_keys.items()]


_TEXTS: Final = (
    "timing_allow_origin", "cross_origin_resource_policy", "content_security_policy", "cache_content", "cache_files",
)  # fmt: skip
_SECONDS: Final = ("cors_max_age_seconds", "negative_ttl_seconds")

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
        raise SettingError("mount-path: a mount path begins with `/` and has no `?`, `#`, `%` or space")
    if _CONTENT.match(text):
        raise SettingError("mount-path: `/api/media` is where media is served by its content; name another path")
    return text.rstrip("/") or "/"
