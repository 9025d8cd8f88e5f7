"""The component: compiled once, and a fresh instance of it for each request."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import wasmtime
import wasmtime.component

from . import _values as values
from ._folder import Folder, Key, MediaObject, Slice, StoreError, Truncated
from ._listing import Entry, FileEntry, ListQuery
from .limits import HANDLES, LIFTED_BYTES, LIFTED_OVERHEAD_BYTES, PIECE_BYTES, Limits
from .settings import Settings


class ComponentError(Exception):
    """The component cannot be served from; the message says why."""


class GuestFailed(Exception):
    """The guest trapped, or its answer cannot be used."""


class GuestLimited(Exception):
    """The guest met a limit. `is_transient` tells whether the same request may go well a moment later."""

    def __init__(self, limit: str, *, is_transient: bool = False) -> None:
        super().__init__(limit)
        self.limit = limit
        self.is_transient = is_transient


@dataclass(frozen=True)
class WitRequest:
    """``record request`` of the interface."""

    method: str
    path_with_query: str
    headers: list[tuple[str, bytes]]
    received_ns: int
    random: int
    client: str | None


@dataclass
class Answer:
    """``record response`` of the interface, its streams taken out of the instance. Whoever gets it closes it."""

    status: int
    fields: list[tuple[str, bytes]]
    parts: list[bytes | Slice] = field(default_factory=list)

    def close(self) -> None:
        """Closes the files that the parts lie in."""
        parts, self.parts = self.parts, []
        for part in parts:
            if isinstance(part, Slice):
                part.close()


class Guest:
    """A compiled and linked component.

    :raises ComponentError: when it is none, or imports what is not given here, or exceeds a limit at its start.
    """

    def __init__(self, component: bytes, folder: Folder, settings: Settings, limits: Limits) -> None:
        self._folder = folder
        self._settings = settings
        self._limits = limits
        config = wasmtime.Config()
        config.consume_fuel = True
        # Address space that is not reserved need not be given back after each request.
        config.memory_reservation = limits.memory_bytes // limits.memories
        config.memory_guard_size = 64 * 1024
        self._engine = wasmtime.Engine(config)
        try:
            self._component = wasmtime.component.Component(self._engine, component)
        except wasmtime.WasmtimeError as error:
            raise ComponentError(f"it is not a WebAssembly component: {_one_line(str(error))}") from error
        export = None
        interface = self._component.get_export_index(_SERVE)
        if interface is not None:
            export = self._component.get_export_index("handle", interface)
        if export is None:
            raise ComponentError(f"it does not export {_SERVE}")
        self._export = export
        # The C API keeps pointers to the callbacks, and Python has to keep them alive.
        self._callbacks: list[Any] = []
        self._linker = self._link()
        try:
            with _Call(self) as call:
                call.instantiate()
        except (GuestFailed, GuestLimited) as error:
            raise ComponentError(f"no instance of it can be made: {error}") from error

    def ask(self, request: WitRequest) -> Answer:
        """Calls the handler in a fresh instance, which is gone on return.

        It blocks, so do not call it on an event loop. Any number of threads may call it at the same time.

        :raises GuestFailed: if it traps, or its response is invalid.
        :raises GuestLimited: if it reaches a limit.
        """
        with _Call(self) as call:
            return call.handle(request)

    def _link(self) -> wasmtime.component.Linker:
        linker = wasmtime.component.Linker(self._engine)
        imports = self._component.type.imports(self._engine)
        given = {name.partition("@")[0]: interface for name, interface in _IMPORTS.items()}
        with linker.root() as root:
            for name, imported in imports.items():
                interface = given.get(name.partition("@")[0])
                if interface is None or not _is_compatible(name):
                    raise ComponentError(f"it imports {name}, which is not given to it")
                of_type = imported.ty
                if not isinstance(of_type, wasmtime.component.ComponentInstanceType):
                    raise ComponentError(f"it imports {name}, which is no interface there")
                with root.add_instance(name) as instance:
                    for item, found in of_type.exports(self._engine).items():
                        self._define(instance, interface, item, found.ty)
        return linker

    def _define(self, instance: Any, interface: _Interface, item: str, of_type: Any) -> None:
        if isinstance(of_type, wasmtime.component.ResourceType):
            resource = interface.resources.get(item)
            if resource is None:
                # Another interface's, used here by its name; what nobody defines is found when it is instantiated.
                return
            host = wasmtime.component.ResourceType.host(resource)
            # The library's own callback raises nothing, and neither does this.
            instance.add_resource(item, host, lambda _store, number: _current().drop(number))
        elif isinstance(of_type, wasmtime.component.FuncType):
            function = interface.functions.get(item)
            if function is None:
                raise ComponentError(f"it imports a function {item}, which is not given to it")
            callback = _CALLBACK(function.call)
            name = item.encode()
            error = _add_func(instance.ptr(), name, len(name), callback, None, _NO_FINALIZER)
            if error:
                raise ComponentError(_message(error))
            self._callbacks.append(callback)


class _Call:
    """One request's store, and what its guest holds."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._held: dict[int, MediaObject | Slice | str] = {}
        self._last_number = 0
        self._lifted_bytes = 0
        # Exception of a callback: the C API passes on messages only.
        self.failed: Exception | None = None
        self.context = 0

    def __enter__(self) -> _Call:
        limits = self._guest._limits
        self._store = wasmtime.Store(self._guest._engine)
        self._store.set_limits(
            memory_size=limits.memory_bytes // limits.memories,
            table_elements=limits.table_elements,
            instances=limits.core_instances,
            tables=limits.tables,
            memories=limits.memories,
        )
        self._store.set_fuel(limits.fuel)
        self.context = _store_context(self._store.ptr())
        _thread.call = self
        return self

    def __exit__(self, *_: object) -> None:
        _thread.call = None
        self._store.close()
        held, self._held = self._held, {}
        for thing in held.values():
            if not isinstance(thing, str):
                thing.close()

    @property
    def folder(self) -> Folder:
        return self._guest._folder

    @property
    def settings(self) -> Settings:
        return self._guest._settings

    def instantiate(self) -> Any:
        """An instance, as the C API has it."""
        instance = ctypes.create_string_buffer(_INSTANCE_BYTES)
        error = _instantiate(self._guest._linker.ptr(), self.context, self._guest._component.ptr(), instance)
        self._check(error)
        return instance

    def handle(self, request: WitRequest) -> Answer:
        """Returns the guest's response to a request."""
        instance = self.instantiate()
        function = ctypes.create_string_buffer(_FUNCTION_BYTES)
        if not _get_func(instance, self.context, self._guest._export.ptr(), function):
            raise GuestFailed("its export is no function")
        result = ctypes.create_string_buffer(values.VALUE_BYTES)
        parameter = ctypes.create_string_buffer(
            _REQUEST.lower(
                self.context,
                (
                    request.method,
                    request.path_with_query,
                    request.headers,
                    request.received_ns,
                    request.random,
                    request.client,
                ),
            ),
            values.VALUE_BYTES,
        )
        try:
            error = _call(function, self.context, parameter, 1, result, 1)
        finally:
            values.delete(parameter)
        self._check(error)
        try:
            status, fields, body, _ = _RESPONSE.lift(self.context, result.raw)
        except (values.ValueMismatch, UnicodeDecodeError) as mismatch:
            raise GuestFailed(f"its answer is of another type: {mismatch}") from mismatch
        finally:
            values.delete(result)
        made = (part for case, part in body if case == "bytes")
        content_bytes = sum(len(name) + len(value) for name, value in fields) + sum(map(len, made))
        self.lift(content_bytes + LIFTED_OVERHEAD_BYTES * (len(fields) + len(body)))
        answer = Answer(status, fields)
        try:
            for case, part in body:
                answer.parts.append(part if case == "bytes" else self._take(*part))
        except GuestFailed:
            answer.close()
            raise
        return answer

    def lift(self, count: int) -> None:
        """Counts bytes that were copied out of the instance.

        :raises GuestLimited: when they are too many.
        """
        self._lifted_bytes += count
        if self._lifted_bytes > LIFTED_BYTES:
            raise GuestLimited("lifted bytes")

    def hold(self, thing: MediaObject | Slice | str) -> int:
        """A number that stands for a thing, for as long as the guest holds it.

        :raises GuestLimited: when it holds too many.
        """
        if len(self._held) >= HANDLES:
            if not isinstance(thing, str):
                thing.close()
            raise GuestLimited("handles")
        self._last_number += 1
        self._held[self._last_number] = thing
        return self._last_number

    def object(self, number: int) -> MediaObject:
        """The object of that number."""
        found = self._held.get(number)
        if not isinstance(found, MediaObject):
            raise GuestFailed("a handle is no object")
        return found

    def stream(self, number: int) -> Slice:
        """The stream of that number."""
        found = self._held.get(number)
        if not isinstance(found, Slice):
            raise GuestFailed("a handle is no stream")
        return found

    def text(self, number: int) -> str:
        """The message of the error with that number."""
        found = self._held.get(number)
        if not isinstance(found, str):
            raise GuestFailed("a handle is no error")
        return found

    def drop(self, number: int) -> None:
        """The guest holds it no more."""
        found = self._held.pop(number, None)
        if found is not None and not isinstance(found, str):
            found.close()

    def _take(self, number: int, length_bytes: int) -> Slice:
        slice_ = self._held.get(number)
        if not isinstance(slice_, Slice):
            raise GuestFailed("a body part is no stream of the store's")
        if slice_.length_bytes < length_bytes:
            raise GuestFailed(f"a body part promises {length_bytes} bytes and has {slice_.length_bytes}")
        del self._held[number]
        slice_.length_bytes = length_bytes
        return slice_

    def _check(self, error: int | None) -> None:
        """Says why a call into the guest went wrong, if it did."""
        if not error:
            return
        said = _message(error)
        if self.failed is not None:
            raise self.failed
        # The C API tells traps of components by their words only; the tests of the hostile guests tell when it words
        # them anew.
        if "all fuel consumed" in said:
            raise GuestLimited("CPU time", is_transient=True)
        if "call stack exhausted" in said:
            raise GuestLimited("stack")
        if "fuel allocated for hostcalls" in said:
            raise GuestLimited("lifted bytes")
        if "handle limit exceeded" in said:
            raise GuestLimited("handles")
        if "resource limit exceeded" in said:
            raise GuestLimited("instances")
        if "exceeds memory limits" in said:
            raise GuestLimited("guest memory")
        if "exceeds table limits" in said:
            raise GuestLimited("tables")
        raise GuestFailed(f"the guest trapped: {said}")


_thread = threading.local()


def _current() -> _Call:
    """The call that this thread is in: an import is called in the thread that called the guest."""
    call: _Call = _thread.call
    return call


@dataclass(frozen=True)
class _Function:
    """A host function: what it takes and gives, and what it does."""

    does: Callable[..., Any]
    takes: tuple[values.Type, ...]
    gives: values.Type | None

    def call(self, _data: int, context: int, _type: int, args: int, nargs: int, results: int, nresults: int) -> int:
        """Does it, as the C API calls it: an error of the C API's, or none."""
        call = _current()
        try:
            if nargs != len(self.takes) or nresults != (self.gives is not None):
                raise GuestFailed("a function is imported with another type")
            places = range(args or 0, (args or 0) + nargs * values.VALUE_BYTES, values.VALUE_BYTES)
            pairs = zip(self.takes, places, strict=True)
            taken = [of_type.lift_at(context, place) for of_type, place in pairs]
            given = self.does(call, *taken)
            if self.gives is not None:
                ctypes.memmove(results, self.gives.lower(context, given), values.VALUE_BYTES)
        except Exception as error:
            # It must not reach the C code that called; it is raised again behind the guest.
            call.failed = error if isinstance(error, GuestFailed | GuestLimited) else GuestFailed(repr(error))
            made: int = _error_new(b"the host refused")
            return made
        return 0


def _open(call: _Call, key: Key) -> tuple[bool, Any]:
    call.lift(len(key[1]))
    try:
        return True, call.hold(call.folder.open(key))
    except StoreError as error:
        return False, (error.reason, None)


def _list(call: _Call, folder: str, query: tuple[Any, ...]) -> tuple[bool, Any]:
    order, descending, search, after, most = query
    call.lift(len(folder) + len(search or "") + len(after[0] if after else ""))
    try:
        page = call.folder.list_folder(folder, ListQuery(order, descending, search, _entry_of(after), most))
    except StoreError as error:
        return False, (error.reason, None)
    entries = [
        (
            entry.name,
            entry.modified_ns,
            ("folder", None) if entry.file is None else ("file", (entry.file.length_bytes, entry.file.media_type)),
        )
        for entry in page.entries
    ]
    return True, (entries, page.total, page.has_more)


def _entry_of(lifted: tuple[Any, ...] | None) -> Entry | None:
    if lifted is None:
        return None
    name, modified_ns, (_, file) = lifted
    return Entry(name, modified_ns, None if file is None else FileEntry(*file))


def _info(call: _Call, number: int) -> tuple[Any, ...]:
    info = call.object(number).info
    return (
        info.length_bytes,
        info.media_type,
        info.modified_ns,
        info.created_ns,
        info.digest,
        info.version,
        info.access,
    )


def _variants(call: _Call, number: int) -> list[Any]:
    return [(found.key, found.media_type, found.content_coding) for found in call.object(number).variants()]


def _read(call: _Call, number: int, offset: int, length_bytes: int) -> tuple[bool, Any]:
    try:
        return True, call.hold(call.object(number).read(offset, length_bytes))
    except StoreError as error:
        return False, (error.reason, None)


def _settings(call: _Call) -> tuple[bool, Any]:
    return True, call.settings.record()


def _signing_keys(call: _Call) -> tuple[bool, Any]:
    return True, call.settings.keys()


def _read_stream(call: _Call, number: int, count: int) -> tuple[bool, Any]:
    """A guest may read what it gives away; most never do. It gets less than it asks for, as it has to expect."""
    slice_ = call.stream(number)
    if slice_.length_bytes == 0:
        return False, ("closed", None)
    count = min(count, slice_.length_bytes, PIECE_BYTES // 4)
    if count == 0:
        return True, b""
    try:
        piece = slice_.file.read(slice_.offset, count)
    except (OSError, Truncated) as error:
        return False, ("last-operation-failed", call.hold(str(error)))
    slice_.skip(len(piece))
    return True, piece


def _skip_stream(call: _Call, number: int, count: int) -> tuple[bool, Any]:
    slice_ = call.stream(number)
    if slice_.length_bytes == 0:
        return False, ("closed", None)
    count = min(count, slice_.length_bytes)
    slice_.skip(count)
    return True, count


def _subscribe(call: _Call, number: int) -> int:
    # A file is always ready: what is read waits for the disk.
    call.stream(number)
    return call.hold("pollable")


def _poll(call: _Call, numbers: list[int]) -> list[int]:
    if not numbers:
        raise GuestFailed("it polls nothing")
    return list(range(len(numbers)))


def _say(call: _Call, number: int) -> str:
    return call.text(number)


@dataclass(frozen=True)
class _Interface:
    """An interface that the component may import, or a part of it."""

    resources: dict[str, int]
    functions: dict[str, _Function]


_OBJECT, _STREAM, _ERROR, _POLLABLE, _OUTPUT = 1, 2, 3, 4, 5
_object, _stream = values.Handle(_OBJECT), values.Handle(_STREAM)
_pollable, _error = values.Handle(_POLLABLE), values.Handle(_ERROR)

_key = values.Variant(content=values.STRING, named=values.STRING)
_error_code = values.Variant(
    not_found=None, busy=None, io=values.Option(values.STRING), other=values.Option(values.STRING)
)
_read_error = values.Variant(out_of_bounds=None, failed=_error_code)
_settings_record = values.Record(
    mount_path=values.Option(values.STRING),
    cors_origins=values.Option(values.List(values.STRING)),
    cors_max_age_s=values.Option(values.U32),
    timing_allow_origin=values.Option(values.STRING),
    cross_origin_resource_policy=values.Option(values.STRING),
    content_security_policy=values.Option(values.STRING),
    cache_content=values.Option(values.STRING),
    cache_files=values.Option(values.STRING),
    negative_ttl_s=values.Option(values.U32),
    browse=values.Option(values.BOOL),
    uploads=values.Option(values.BOOL),
)
_signing_key = values.Record(id=values.STRING, secret=values.BYTES)
_stream_error = values.Variant(last_operation_failed=_error, closed=None)
_info_record = values.Record(
    length=values.U64,
    media_type=values.STRING,
    modified=values.Option(values.U64),
    created=values.Option(values.U64),
    digest=values.Option(values.STRING),
    version=values.Option(values.Variant(strong=values.STRING, weak=values.STRING)),
    access=values.Enum(),
)
_variant_info = values.Record(key=_key, media_type=values.STRING, content_coding=values.Option(values.STRING))
_entry = values.Record(
    name=values.STRING,
    modified=values.Option(values.U64),
    kind=values.Variant(folder=None, file=values.Record(length=values.U64, media_type=values.STRING)),
)
_list_query = values.Record(
    order=values.Enum(),
    descending=values.BOOL,
    search=values.Option(values.STRING),
    after=values.Option(_entry),
    max=values.U32,
)
_listing = values.Record(entries=values.List(_entry), total=values.U64, has_more=values.BOOL)
_some_bytes = values.Result(values.BYTES, _stream_error)
_some_count = values.Result(values.U64, _stream_error)

_headers = values.List(values.Tuple(values.STRING, values.BYTES))
_REQUEST: Final = values.Record(
    method=values.STRING,
    path_with_query=values.STRING,
    headers=_headers,
    received=values.U64,
    random=values.U64,
    client=values.Option(values.STRING),
)
_RESPONSE: Final = values.Record(
    status_code=values.U16,
    headers=_headers,
    body=values.List(values.Variant(bytes=values.BYTES, stream=values.Record(source=_stream, length=values.U64))),
    # This package has no response cache.
    cacheability=None,
)

_SERVE: Final = "millpond:media/media-serve@0.2.0"

_IMPORTS: Final = {
    "millpond:media/media-store@0.2.0": _Interface(
        {"object": _OBJECT},
        {
            "open": _Function(_open, (_key,), values.Result(_object, _error_code)),
            "list": _Function(_list, (values.STRING, _list_query), values.Result(_listing, _error_code)),
            "[method]object.info": _Function(_info, (_object,), _info_record),
            "[method]object.variants": _Function(_variants, (_object,), values.List(_variant_info)),
            "[method]object.read": _Function(
                _read, (_object, values.U64, values.U64), values.Result(_stream, _read_error)
            ),
        },
    ),
    "millpond:media/settings@0.2.0": _Interface(
        {},
        {
            "get": _Function(_settings, (), values.Result(_settings_record, None)),
            "signing-keys": _Function(_signing_keys, (), values.Result(values.List(_signing_key), None)),
        },
    ),
    "wasi:io/error@0.2.12": _Interface(
        {"error": _ERROR}, {"[method]error.to-debug-string": _Function(_say, (_error,), values.STRING)}
    ),
    "wasi:io/poll@0.2.12": _Interface(
        {"pollable": _POLLABLE},
        {
            "[method]pollable.ready": _Function(lambda _call, _number: True, (_pollable,), values.BOOL),
            "[method]pollable.block": _Function(lambda _call, _number: None, (_pollable,), None),
            "poll": _Function(_poll, (values.List(_pollable),), values.List(values.U32)),
        },
    ),
    # Nobody is ever given an output stream, so it has no functions: a component that imports them is told so.
    "wasi:io/streams@0.2.12": _Interface(
        {"input-stream": _STREAM, "output-stream": _OUTPUT},
        {
            "[method]input-stream.read": _Function(_read_stream, (_stream, values.U64), _some_bytes),
            "[method]input-stream.blocking-read": _Function(_read_stream, (_stream, values.U64), _some_bytes),
            "[method]input-stream.skip": _Function(_skip_stream, (_stream, values.U64), _some_count),
            "[method]input-stream.blocking-skip": _Function(_skip_stream, (_stream, values.U64), _some_count),
            "[method]input-stream.subscribe": _Function(_subscribe, (_stream,), _pollable),
        },
    ),
}


def _is_compatible(name: str) -> bool:
    """Whether an import is of a version that is given: any patch of 0.2 for `wasi:io`, exactly ours for the others."""
    return name in _IMPORTS or (name.startswith("wasi:io/") and name.partition("@")[2].startswith("0.2."))


# `wasmtime_component_instance_t` and `wasmtime_component_func_t`, with room to spare.
_INSTANCE_BYTES: Final = 64
_FUNCTION_BYTES: Final = 64

_pointer = ctypes.c_void_p
_size = ctypes.c_size_t
_CALLBACK: Final = ctypes.CFUNCTYPE(_size, _pointer, _pointer, _pointer, _pointer, _size, _pointer, _size)
_NO_FINALIZER: Final = ctypes.CFUNCTYPE(None, _pointer)()

_store_context = values.function("wasmtime_store_context", _pointer, _pointer)
_instantiate = values.function(
    "wasmtime_component_linker_instantiate", _pointer, _pointer, _pointer, _pointer, _pointer, is_long=True
)
_get_func = values.function(
    "wasmtime_component_instance_get_func", ctypes.c_bool, _pointer, _pointer, _pointer, _pointer
)
_call = values.function(
    "wasmtime_component_func_call", _pointer, _pointer, _pointer, _pointer, _size, _pointer, _size, is_long=True
)
_add_func = values.function(
    "wasmtime_component_linker_instance_add_func",
    _pointer, _pointer, ctypes.c_char_p, _size, _CALLBACK, _pointer, ctypes.CFUNCTYPE(None, _pointer),
)  # fmt: skip
_error_new = values.function("wasmtime_error_new", _pointer, ctypes.c_char_p)


def _message(error: int) -> str:
    """Takes the message of an error of the C API, and deletes the error."""
    return _one_line(values.take_message(error))


def _one_line(text: str) -> str:
    return ", ".join(line.strip() for line in text.splitlines() if line.strip())
