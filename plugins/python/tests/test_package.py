"""The package, its command and its settings."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, serve_uvicorn
from hatchling.builders.wheel import WheelBuilder
from wasmtime import _bindings

from millpond import SettingError, Settings, _values
from millpond._application import embedded, origin_form, without_mount

COMPONENT = REPOSITORY / "host/millpond/component/media-serve.wasm"
PACKAGE = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not COMPONENT.is_file(), reason="there is no checkout around")
def test_the_component_is_the_hosts(tmp_path: Path) -> None:
    assert embedded() == COMPONENT.read_bytes()
    (wheel,) = WheelBuilder(str(PACKAGE)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("millpond/media-serve.wasm") == COMPONENT.read_bytes()
        assert {"millpond/py.typed", "millpond/media_types.txt"} <= set(archive.namelist())


def test_values_lie_in_memory_as_they_are_read() -> None:
    """What `_values` takes for granted of the C API is what the library's own declarations say."""
    assert ctypes.sizeof(_bindings.wasmtime_component_val) == _values.VALUE_BYTES
    assert _bindings.wasmtime_component_val.of.offset == 8
    entry = _bindings.wasmtime_component_valrecord_entry
    assert (ctypes.sizeof(entry), entry.val.offset) == (48, 16)
    variant = _bindings.wasmtime_component_valvariant
    assert (offset(variant, "discriminant"), offset(variant, "val")) == (0, 16)
    assert offset(_bindings.wasmtime_component_valresult, "val") == 8
    assert ctypes.sizeof(_bindings.wasmtime_component_instance_t) <= 64
    assert ctypes.sizeof(_bindings.wasmtime_component_func_t) <= 64


def offset(structure: Any, field: str) -> Any:
    return getattr(structure, field).offset


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_cleanly(media: Path, ending: signal.Signals) -> None:
    with serve_uvicorn(media, "--mount-path", "/") as served:
        answer = served.ask("/small.txt")
        assert answer.body == b"Twelve bytes"
        assert answer.field("server") is None
        assert len([name for name, _ in answer.fields if name == "date"]) == 1
        assert served.process
        served.process.send_signal(ending)
        assert served.process.wait() == 0


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_asks_for_no_end_ends_nothing(media: Path, ignored: signal.Signals) -> None:
    with serve_uvicorn(media, "--mount-path", "/") as served:
        assert served.process
        served.process.send_signal(ignored)
        # The figures are told by a signal too, which comes after it.
        served.figures()
        assert served.ask("/small.txt").status == 200


def test_a_second_signal_ends_it_at_once(media: Path) -> None:
    (media / "large.bin").write_bytes(bytes(64 << 20))
    with serve_uvicorn(media, "--mount-path", "/") as served:
        assert served.process
        with served.connect("GET", "/large.bin") as client:
            assert client.recv(1)
            served.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                served.process.wait(timeout=0.5)
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait() == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/none"], "No such file"),
        (["{media}", "--setting", "negative-ttl=soon"], "negative-ttl: a number of seconds"),
        (["{media}", "--setting", "browse=yes"], "browse: on or off"),
        (["{media}", "--setting", "cache=1"], "cache: there is no such setting"),
        (["{media}", "--mount-path", "media"], "mount-path: a mount path"),
        (["{media}", "--listen", "8080"], "8080 is not HOST:PORT"),
        (["{media}", "--component", "{media}/small.txt"], "not a WebAssembly component"),
    ],
)
def test_what_keeps_it_from_beginning_is_said_in_one_line(media: Path, arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "millpond", *(argument.format(media=media) for argument in arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_settings() -> None:
    settings = Settings(
        mount_path="/files/",
        cors_origins=["https://a.example", "http://b.example:81"],
        cors_max_age_seconds=600,
        content_security_policy="",
        browse=False,
        signing_keys={"k1": "00" * 16},
    )
    assert settings.record() == (
        "/files",
        ["https://a.example", "http://b.example:81"],
        600,
        None,
        None,
        "",
        None,
        None,
        None,
        False,
        None,
    )
    assert settings.keys() == [("k1", bytes(16))]
    assert "0000" not in repr(settings), "secrets are not shown"
    assert Settings.parse({"cors-origins": "*"}) == Settings()
    parsed = Settings.parse(
        {
            "mount-path": "/files",
            "cors-origins": "https://a.example, http://b.example:81",
            "cors-max-age": "600",
            "content-security-policy": "",
            "browse": "off",
        }
    )
    assert parsed.record() == settings.record()
    for pairs in (
        {"mount-path": "media"},
        {"mount-path": "/a?b"},
        {"mount-path": "/api/media"},
        {"mount-path": "/api/media/files"},
        {"cors-origins": "https://A.example"},
        {"cache-files": "a\nb"},
        {"negative-ttl": "-1"},
        {"signing-keys": "k1:5ec2e7"},
    ):
        with pytest.raises(SettingError) as told:
            Settings.parse(pairs)
        assert "5ec2e7" not in str(told.value)


def test_targets() -> None:
    assert origin_form("http://a.example/b?c") == "/b?c"
    assert origin_form("HTTPS://a.example?c") == "/?c"
    assert origin_form("/http://a") == "/http://a"
    assert without_mount("/files/media/a", "/files") == "/media/a"
    assert without_mount("/files?a", "/files") == "/?a"
    assert without_mount("/filesmedia", "/files") == "/filesmedia"
    assert without_mount("/media/a", "") == "/media/a"
