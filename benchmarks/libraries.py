"""Other people's libraries that the suites compare with: the module if it is installed, else the reason.

``pip install 'pydec-train[peers]'`` brings those that live beside the tested versions of PyTorch and NumPy.
byzpy asks for older ones, and works with these: ``pip install --no-deps byzpy==0.1.4 cloudpickle``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import types
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from typing import Any

INSTALL = {
    "bitsandbytes": "pip install bitsandbytes",
    "byzfl": "pip install byzfl",
    "byzpy": "pip install --no-deps byzpy==0.1.4 cloudpickle",
    "fbgemm_gpu": "pip install fbgemm-gpu-cpu==1.8.0",
    "gossipy": "pip install gossipy-dfl",
    "krum": "Python 3.12 and pip install krum",
    "piquant": "pip install pypiquant",
    "pyeclib": "pip install pyeclib",
    "streaming": "pip install --no-deps mosaicml-streaming, and what it then misses: xxhash zstd brotli ...",
    "torchft": "pip install torchft",
    "webdataset": "pip install webdataset",
}


@cache
def library(name: str) -> types.ModuleType | str:
    """An installed library, or in a few words why it cannot be compared with."""
    with _quiet(), _without_torchvision():
        try:
            return importlib.import_module(name)
        except Exception as error:  # whatever another library does when it is loaded
            missing = isinstance(error, ModuleNotFoundError) and error.name == name
            problem = "not installed" if missing else f"does not load ({type(error).__name__}: {error})"
    return f"{problem}; {INSTALL[name]}"


@cache
def part(name: str) -> Any:
    """A submodule of a library that ``library`` has loaded, such as ``byzfl.aggregators``."""
    with _quiet(), _without_torchvision():
        return importlib.import_module(name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep greetings and warnings of a library out of the table."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


class _Anything:
    """Stands for whatever is looked up, called or derived from; nothing here is used when rules are timed."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> _Anything:
        return self

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


_PARTS = ("datasets", "datasets.folder", "models", "transforms", "transforms.functional", "utils")


class _Stub(types.ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}", _Anything)


@contextlib.contextmanager
def _without_torchvision() -> Iterator[None]:
    """Peers import torchvision beside what is timed, and one for another PyTorch does not load."""
    names = [
        "torchvision",
        *(f"torchvision.{part}" for part in _PARTS),
    ]
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: _Stub(name) for name in names})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
