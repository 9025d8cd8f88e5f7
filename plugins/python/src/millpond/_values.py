"""Component values between Python and the C API of wasmtime (``wasmtime/component/val.h``).

``wasmtime.component`` converts values too, but it is not used for calls here, for two reasons. It keeps the set of
classes that it tests a variant's value against, and the last exception, in globals, so that two threads that call at
one time see each other's (bytecodealliance/wasmtime-py#254). And it makes a Python object of every byte of a list,
which made up nine tenths of a request's time.

A type here checks the kind of each value that it lifts: what an import is given is the component's say, not ours.
"""

from __future__ import annotations

import ctypes
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final

from wasmtime import _ffi

VALUE_BYTES: Final = 32
"""Size of a ``wasmtime_component_val_t``."""

_VALUE: Final = struct.Struct("<B7xQQQ")
_ENTRY: Final = struct.Struct("<16x32s")
_NOTHING: Final = _VALUE.pack(0, 0, 0, 0)
_PAYLOAD_AT: Final = 8

_BOOL, _U8, _U16, _U32, _U64, _STRING, _LIST, _RECORD, _TUPLE, _VARIANT, _ENUM, _OPTION, _RESULT, _RESOURCE = (
    0, 2, 4, 6, 8, 12, 13, 14, 15, 16, 17, 18, 19, 21,
)  # fmt: skip


class ValueMismatch(Exception):
    """A value is of another kind than the interface says."""


class _Vector(ctypes.Structure):
    """Every vector of the C API: its length in elements, and where they are."""

    _fields_ = (("size", ctypes.c_size_t), ("data", ctypes.c_void_p))
    size: int
    data: int | None


# The same library as the package has loaded, its functions called without letting go of Python's lock: with it, each of
# the hundred short ones that a request takes would be an occasion for another thread to take its time.
_keeping = ctypes.PyDLL(_ffi.dll._name, handle=_ffi.dll._handle)


def function(name: str, result: Any, *parameters: Any, is_long: bool = False) -> Any:
    """A function of the C API, with types of its own rather than the library's, which are shared and private.

    A long one lets go of Python's lock while it runs.
    """
    found = _ffi.dll[name] if is_long else _keeping[name]
    found.restype, found.argtypes = result, parameters
    return found


_pointer = ctypes.c_void_p
_bytes_new = function("wasm_byte_vec_new", None, _pointer, ctypes.c_size_t, ctypes.c_char_p)
_list_new = function("wasmtime_component_vallist_new_uninit", None, _pointer, ctypes.c_size_t)
_tuple_new = function("wasmtime_component_valtuple_new_uninit", None, _pointer, ctypes.c_size_t)
_record_new = function("wasmtime_component_valrecord_new_uninit", None, _pointer, ctypes.c_size_t)
_value_new = function("wasmtime_component_val_new", _pointer, _pointer)
_value_delete = function("wasmtime_component_val_delete", None, _pointer)
_host_new = function("wasmtime_component_resource_host_new", _pointer, ctypes.c_bool, ctypes.c_uint32, ctypes.c_uint32)
_host_rep = function("wasmtime_component_resource_host_rep", ctypes.c_uint32, _pointer)
_host_type = function("wasmtime_component_resource_host_type", ctypes.c_uint32, _pointer)
_host_delete = function("wasmtime_component_resource_host_delete", None, _pointer)
_host_to_any = function("wasmtime_component_resource_host_to_any", _pointer, _pointer, _pointer, _pointer)
_any_to_host = function("wasmtime_component_resource_any_to_host", _pointer, _pointer, _pointer, _pointer)
_error_delete = function("wasmtime_error_delete", None, _pointer)
_error_message = function("wasmtime_error_message", None, _pointer, _pointer)
_bytes_delete = function("wasm_byte_vec_delete", None, _pointer)


def delete(value: Any) -> None:
    """Frees what a value that lies at that place owns."""
    _value_delete(value)


def take_message(error: int) -> str:
    """Takes the message of an error, and deletes the error."""
    vector = _Vector()
    _error_message(error, ctypes.byref(vector))
    message = ctypes.string_at(vector.data or 0, vector.size) if vector.size else b""
    _bytes_delete(ctypes.byref(vector))
    _error_delete(error)
    return message.decode(errors="replace")


class Type(ABC):
    """A type of the component model. ``context`` is the address of the store's context."""

    kind: int

    @abstractmethod
    def lower(self, context: int, value: Any) -> bytes:
        """The value as a ``wasmtime_component_val_t``, which the caller has to delete."""

    @abstractmethod
    def _lift(self, context: int, raw: bytes) -> Any: ...

    def lift(self, context: int, raw: bytes) -> Any:
        """The Python value of a ``wasmtime_component_val_t``, which stays as it is.

        :raises ValueMismatch: when it is of another type.
        """
        if raw[0] != self.kind:
            raise ValueMismatch(f"a value is of kind {raw[0]}, not {self.kind}")
        return self._lift(context, raw)

    def lift_at(self, context: int, address: int) -> Any:
        """The same of a value that lies at that address."""
        return self.lift(context, ctypes.string_at(address, VALUE_BYTES))


class Number(Type):
    """``bool``, ``u8``, ``u16``, ``u32`` or ``u64``."""

    def __init__(self, kind: int, bits: int) -> None:
        self.kind = kind
        self._mask = (1 << bits) - 1

    def lower(self, context: int, value: Any) -> bytes:
        return _VALUE.pack(self.kind, int(value), 0, 0)

    def _lift(self, context: int, raw: bytes) -> int:
        # Beyond the number's own bytes lies whatever was there before.
        number: int = _VALUE.unpack(raw)[1]
        return number & self._mask


class String(Type):
    """``string``."""

    kind = _STRING

    def lower(self, context: int, value: str) -> bytes:
        return _VALUE.pack(self.kind, *_new_name(value), 0)

    def _lift(self, context: int, raw: bytes) -> str:
        return _read_name(raw)


class Bytes(Type):
    """``list<u8>``: a list like any other to wasmtime, 32 bytes for each value, whose payloads are cut out at once."""

    kind = _LIST

    def lower(self, context: int, value: bytes) -> bytes:
        values = bytearray(len(value) * VALUE_BYTES)
        values[0::VALUE_BYTES] = bytes((_U8,)) * len(value)
        values[_PAYLOAD_AT::VALUE_BYTES] = value
        return _VALUE.pack(self.kind, *_new_vector(_list_new, len(value), bytes(values)), 0)

    def _lift(self, context: int, raw: bytes) -> bytes:
        _, size, address, _ = _VALUE.unpack(raw)
        if size == 0:
            return b""
        values = ctypes.string_at(address, size * VALUE_BYTES)
        if values[0] != _U8:
            raise ValueMismatch("a list is of something else than bytes")
        return values[_PAYLOAD_AT::VALUE_BYTES]


class List(Type):
    """``list<…>``."""

    kind = _LIST

    def __init__(self, element: Type) -> None:
        self._element = element

    def lower(self, context: int, value: Sequence[Any]) -> bytes:
        values = b"".join([self._element.lower(context, element) for element in value])
        return _VALUE.pack(self.kind, *_new_vector(_list_new, len(value), values), 0)

    def _lift(self, context: int, raw: bytes) -> list[Any]:
        return [self._element.lift(context, element) for element in _elements(raw)]


class Tuple(Type):
    """``tuple<…>``."""

    kind = _TUPLE

    def __init__(self, *elements: Type) -> None:
        self._elements = elements

    def lower(self, context: int, value: Sequence[Any]) -> bytes:
        pairs = zip(self._elements, value, strict=True)
        values = b"".join([element.lower(context, of) for element, of in pairs])
        return _VALUE.pack(self.kind, *_new_vector(_tuple_new, len(value), values), 0)

    def _lift(self, context: int, raw: bytes) -> tuple[Any, ...]:
        values = list(_elements(raw))
        if len(values) != len(self._elements):
            raise ValueMismatch("a tuple is of another length")
        pairs = zip(self._elements, values, strict=True)
        return tuple([element.lift(context, of) for element, of in pairs])


class Record(Type):
    """``record``: a tuple of its fields' values in Python. A field of type ``None`` is not lifted."""

    kind = _RECORD

    def __init__(self, **fields: Type | None) -> None:
        self._fields = [(name.replace("_", "-"), field) for name, field in fields.items()]

    def lower(self, context: int, value: Sequence[Any]) -> bytes:
        entries = bytearray()
        for (name, field), of in zip(self._fields, value, strict=True):
            if field is None:
                raise ValueMismatch(f"the field {name} has no type")
            entries += struct.pack("<QQ", *_new_name(name)) + field.lower(context, of)
        return _VALUE.pack(self.kind, *_new_vector(_record_new, len(value), bytes(entries)), 0)

    def _lift(self, context: int, raw: bytes) -> tuple[Any, ...]:
        _, size, address, _ = _VALUE.unpack(raw)
        if size != len(self._fields):
            raise ValueMismatch("a record has other fields")
        entries = _ENTRY.iter_unpack(ctypes.string_at(address, size * _ENTRY.size))
        pairs = zip(self._fields, entries, strict=True)
        return tuple([None if field is None else field.lift(context, of) for (_, field), (of,) in pairs])


class Variant(Type):
    """``variant``: a pair of case and payload in Python."""

    kind = _VARIANT

    def __init__(self, **cases: Type | None) -> None:
        self._cases = {name.replace("_", "-"): payload for name, payload in cases.items()}

    def lower(self, context: int, value: tuple[str, Any]) -> bytes:
        case, payload = value
        return _VALUE.pack(self.kind, *_new_name(case), _new_payload(context, self._cases[case], payload))

    def _lift(self, context: int, raw: bytes) -> tuple[str, Any]:
        case = _read_name(raw)
        if case not in self._cases:
            raise ValueMismatch("a variant has another case")
        return case, _read_payload(context, self._cases[case], _VALUE.unpack(raw)[3])


class Enum(Type):
    """``enum``: the name of its case in Python."""

    kind = _ENUM

    def lower(self, context: int, value: str) -> bytes:
        return _VALUE.pack(self.kind, *_new_name(value), 0)

    def _lift(self, context: int, raw: bytes) -> str:
        return _read_name(raw)


class Option(Type):
    """``option<…>``."""

    kind = _OPTION

    def __init__(self, some: Type) -> None:
        self._some = some

    def lower(self, context: int, value: Any) -> bytes:
        payload = 0 if value is None else _new_payload(context, self._some, value)
        return _VALUE.pack(self.kind, payload, 0, 0)

    def _lift(self, context: int, raw: bytes) -> Any:
        address = _VALUE.unpack(raw)[1]
        return _read_payload(context, self._some, address) if address else None


class Result(Type):
    """``result<…>``, lowered only: a pair of success and payload. ``None`` is the type of no payload."""

    kind = _RESULT

    def __init__(self, ok: Type, error: Type | None) -> None:
        self._ok, self._error = ok, error

    def lower(self, context: int, value: tuple[bool, Any]) -> bytes:
        is_ok, payload = value
        return _VALUE.pack(self.kind, is_ok, _new_payload(context, self._ok if is_ok else self._error, payload), 0)

    def _lift(self, context: int, raw: bytes) -> Any:
        raise ValueMismatch("no result is ever given to the host")


class Handle(Type):
    """``own<…>`` or ``borrow<…>`` of a resource of the host's: the number that stands for it in Python."""

    kind = _RESOURCE

    def __init__(self, resource: int) -> None:
        self._resource = resource

    def lower(self, context: int, value: int) -> bytes:
        host = _host_new(True, value, self._resource)
        made = ctypes.c_void_p()
        error = _host_to_any(context, host, ctypes.byref(made))
        _host_delete(host)
        if error:
            _error_delete(error)
            raise ValueMismatch("the store takes no more handles")
        return _VALUE.pack(self.kind, made.value or 0, 0, 0)

    def _lift(self, context: int, raw: bytes) -> int:
        host = ctypes.c_void_p()
        error = _any_to_host(context, _VALUE.unpack(raw)[1], ctypes.byref(host))
        if error:
            _error_delete(error)
            raise ValueMismatch("a handle is none of the host's")
        number: int = _host_rep(host)
        resource: int = _host_type(host)
        _host_delete(host)
        if resource != self._resource:
            raise ValueMismatch("a handle is of another resource")
        return number


BOOL: Final = Number(_BOOL, 8)
U16: Final = Number(_U16, 16)
U32: Final = Number(_U32, 32)
U64: Final = Number(_U64, 64)
STRING: Final = String()
BYTES: Final = Bytes()


def _new_vector(make: Any, size: int, elements: bytes) -> tuple[int, int]:
    vector = _Vector()
    make(ctypes.byref(vector), size)
    if size:
        ctypes.memmove(vector.data, elements, len(elements))  # type: ignore[arg-type]
    return size, vector.data or 0


def _new_name(text: str) -> tuple[int, int]:
    encoded = text.encode()
    vector = _Vector()
    _bytes_new(ctypes.byref(vector), len(encoded), encoded)
    return vector.size, vector.data or 0


def _read_name(raw: bytes) -> str:
    _, size, address, _ = _VALUE.unpack(raw)
    return ctypes.string_at(address, size).decode() if size else ""


def _new_payload(context: int, payload: Type | None, value: Any) -> int:
    if payload is None:
        return 0
    address: int = _value_new(ctypes.c_char_p(payload.lower(context, value)))
    return address


def _read_payload(context: int, payload: Type | None, address: int) -> Any:
    if payload is None:
        return None
    if not address:
        raise ValueMismatch("a payload is missing")
    return payload.lift_at(context, address)


def _elements(raw: bytes) -> Iterator[bytes]:
    _, size, address, _ = _VALUE.unpack(raw)
    values = ctypes.string_at(address, size * VALUE_BYTES) if size else b""
    return (values[at : at + VALUE_BYTES] for at in range(0, len(values), VALUE_BYTES))
