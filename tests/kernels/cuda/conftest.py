"""The CUDA kernels run on an emulator, always, and on a GPU where there is one: the same tests.

The emulator (``tests/emulated.py``) runs the threads of a block in an order that it draws; each test runs
under two of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pydec.kernels.cuda import _module
from tests.emulated import Emulated, load_emulated

torch = pytest.importorskip("torch")


def pytest_collection_modifyitems(items):
    """The first test waits for the compiler, which its time limit is not meant for."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@dataclass(frozen=True)
class Gpu:
    """Where a test runs.

    Args:
        module: the compiled kernels.
        device: of the tensors: the emulator's memory is the host's.
    """

    module: ModuleType
    device: str

    def tensor(self, array, shift=0):
        """A copy on the device, exactly as long, ``shift`` elements after a multiple of 64 bytes."""
        array = np.ascontiguousarray(array)
        host = torch.from_numpy(array)
        if self.device == "cpu":  # nothing behind the last element that would hide an overrun
            room = np.empty(array.nbytes + 64 + shift * array.itemsize, np.uint8)
            start = -room.ctypes.data % 64 + shift * array.itemsize
            exact = torch.from_numpy(room[start : start + array.nbytes].view(array.dtype)).as_subclass(
                Emulated
            )
        else:
            exact = torch.empty(len(host) + shift, dtype=host.dtype, device=self.device)[shift:]
        exact.copy_(host)
        return exact

    def room(self, n, dtype=np.float32, shift=0):
        """Memory for n elements that holds garbage."""
        return self.tensor(np.full(n * np.dtype(dtype).itemsize, 0xA5, np.uint8).view(dtype), shift)


def fetch(tensor, dtype=None):
    """The tensor's elements as an array, seen as another dtype of the same size if one is given."""
    array = tensor.cpu().numpy()
    return array if dtype is None else array.view(dtype)


def assert_same_bits(ours, expected):
    """Raise AssertionError unless two arrays are equal bit for bit, but for the payloads of NaN."""
    ours = ours.cpu().numpy() if isinstance(ours, torch.Tensor) else ours
    expected = np.ascontiguousarray(expected)
    assert ours.nbytes == expected.nbytes
    ours = ours.view(expected.dtype).copy()
    if expected.dtype.kind == "f":
        ours[np.isnan(ours)] = np.nan
        expected = np.where(np.isnan(expected), np.asarray(np.nan, expected.dtype), expected)
    np.testing.assert_array_equal(ours.view(np.uint8), expected.view(np.uint8))


PLACES = ["emulated", "emulated in another order", *(["gpu"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=PLACES)
def gpu(request, monkeypatch):
    """Sends the calls of a test to the emulator or a GPU."""
    if request.param == "gpu":
        module = pytest.importorskip("pydec._native_cuda", reason="built without CUDA")
        place = Gpu(module, "cuda")
    else:
        module = load_emulated()
        first = request.param == "emulated"
        module.configure(multiprocessors=1 if first else 3, seed=1 if first else 2024)
        place = Gpu(module, "cpu")
    monkeypatch.setattr(_module, "_loaded", module)
    return place


@pytest.fixture
def same():
    """``assert_same_bits``."""
    return assert_same_bits


@pytest.fixture
def sample():
    """Makes float32 vectors that span most of the range, with zeros, and where asked NaN and infinities."""

    def make(n, seed=0, special=False):
        rng = np.random.default_rng([n, seed])
        x = (rng.standard_normal(n) * 10.0 ** rng.uniform(-30, 30, n)).astype(np.float32)
        plain = rng.random(n) < 0.7
        x[plain] = rng.standard_normal(plain.sum()).astype(np.float32)
        x[rng.random(n) < 0.05] = 0.0
        x[rng.random(n) < 0.02] = -0.0
        if special and n:
            x[rng.integers(0, n, 3)] = [np.nan, np.inf, -np.inf]
        return x

    return make
