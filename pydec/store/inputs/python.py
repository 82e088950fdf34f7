"""A data set that a function returns, such as one of torch: every value becomes a field by its type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from blake3 import blake3

from pydec.disk import Buffer
from pydec.errors import ConfigError, StoreError
from pydec.registry import imported
from pydec.store.inputs.base import Sample
from pydec.store.manifest import DTYPES, Field, Kind, Source


class Returned:
    """The samples of what ``module:function`` returns: with a length and indices, or to be iterated.

    A sample is a tuple, a mapping or one value; bytes, text, numbers, arrays and tensors become fields, and
    anything else that NumPy makes an array of, such as a PIL image. All samples have the first one's fields;
    arrays of another length along their first dimension than it are allowed if ``ragged``.

    Args:
        spec: ``module:function``; it must give the same samples each time.
        ragged: whether the first dimension of arrays differs between samples.

    Raises:
        ConfigError: no such function, or it returns nothing that has samples.
        StoreError: there is no sample, or its values are none that a field can hold.
    """

    kind = "samples"
    classes: tuple[str, ...] = ()
    n_bytes = 0

    def __init__(self, spec: str, ragged: bool = False) -> None:
        module, _, name = spec.partition(":")
        self._spec, self._ragged = spec, ragged
        self._make = imported(module, name, f"data {spec!r}")
        self._data: Any = self._make()
        if not (hasattr(self._data, "__getitem__") and hasattr(self._data, "__len__")) and not isinstance(
            self._data, Iterable
        ):
            raise ConfigError(
                f"data {spec!r}: {name}() must return something with samples, such as a torch Dataset, got "
                f"{type(self._data).__name__}"
            )
        first = next(self._samples(0), None)
        if first is None:
            raise StoreError(f"data {spec!r} holds no sample")
        self.fields = tuple(self._field(name, value) for name, value in _items(first))
        length = len(self._data) if hasattr(self._data, "__len__") else -1
        self.fingerprint = blake3(repr((spec, ragged, length)).encode()).digest()

    def blocks(self, start: int) -> Iterator[Sample]:
        """See ``Input.blocks``."""
        for number, sample in enumerate(self._samples(start), start):
            items = list(_items(sample))
            if [name for name, _ in items] != [field.name for field in self.fields]:
                raise StoreError(
                    f"data {self._spec!r}: sample {number} has fields "
                    f"{', '.join(name for name, _ in items)}, the "
                    f"first has {', '.join(field.name for field in self.fields)}"
                )
            yield Sample(
                tuple(self._bytes(f, v, number) for f, (_, v) in zip(self.fields, items, strict=True))
            )

    def sources(self) -> tuple[Source, ...]:
        """See ``Input.sources``: there are no files."""
        return ()

    def _samples(self, start: int) -> Iterator[Any]:
        if hasattr(self._data, "__getitem__") and hasattr(self._data, "__len__"):
            for number in range(start, len(self._data)):
                yield self._data[number]
        else:
            again = self._data if iter(self._data) is not self._data else self._make()
            for number, sample in enumerate(again):
                if number >= start:
                    yield sample

    def _field(self, name: str, value: Any) -> Field:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return Field(name, Kind.BYTES)
        if isinstance(value, str):
            return Field(name, Kind.TEXT)
        array = self._array(name, value)
        shape = array.shape
        if self._ragged and shape:
            shape = (0, *shape[1:])
        if 0 in shape[1:] or (0 in shape and not self._ragged):
            raise StoreError(
                f"data {self._spec!r}: {name} is empty in the first sample; use --ragged if its length "
                "differs"
            )
        return Field(name, Kind.ARRAY, array.dtype.name, shape)

    def _bytes(self, field: Field, value: Any, number: int) -> Buffer:
        where = f"data {self._spec!r}: sample {number}"
        if field.kind is Kind.BYTES and isinstance(value, (bytes, bytearray, memoryview)):
            return value
        if field.kind is Kind.TEXT and isinstance(value, str):
            return value.encode()
        array = None if isinstance(value, (bytes, str)) else self._array(field.name, value)
        if field.kind is not Kind.ARRAY or array is None or array.dtype.name != field.dtype:
            raise StoreError(
                f"{where} has {type(value).__name__} as {field.name}, the first has "
                f"{field.dtype or field.kind.name}"
            )
        free = bool(field.shape) and field.shape[0] == 0
        if array.shape != field.shape and not (
            free and len(array.shape) == len(field.shape) and array.shape[1:] == field.shape[1:]
        ):
            raise StoreError(
                f"{where} has {field.name} of shape {array.shape}, the first has {field.shape}; use --ragged "
                "if only "
                "the first dimension differs"
            )
        return array.tobytes()

    def _array(self, name: str, value: Any) -> np.ndarray[Any, np.dtype[Any]]:
        if hasattr(value, "detach"):  # a tensor, without importing torch
            value = value.detach().cpu()
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise StoreError(f"data {self._spec!r}: {name} cannot be stored: {error}") from None
        if array.dtype.name not in DTYPES:
            raise StoreError(
                f"data {self._spec!r}: {name} is a {type(value).__name__} of {array.dtype}; a data set holds "
                "bytes, "
                f"text and {', '.join(DTYPES)}"
            )
        return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _items(sample: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of a sample's fields."""
    if isinstance(sample, Mapping):
        for name in sorted(sample, key=str):
            yield str(name), sample[name]
    elif isinstance(sample, (tuple, list)):
        for number, value in enumerate(sample):
            yield str(number), value
    else:
        yield "0", sample
