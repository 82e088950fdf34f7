"""The CUDA kernels run on an emulator, always, and on a GPU where there is one: the same tests.

The emulator is the kernels and their bindings, compiled as C++ (csrc/cuda/emulate); the build lies in
``build/emulate`` and is brought up to date when the first of these tests asks for it. The emulator runs the
threads of a block in an order that it draws; each test runs under two of them.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pydec.kernels.cuda import _module

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[3]


def sanitized() -> bool:
    """Whether this program runs under AddressSanitizer, which the module then must be built for."""
    return "libasan" in os.environ.get("LD_PRELOAD", "")


@functools.cache
def load_emulated() -> ModuleType:
    """The module; raises RuntimeError with the compiler's words if it cannot be built."""
    pybind11 = pytest.importorskip(
        "pybind11", reason="`make install` and the dev extra bring the build tools"
    )
    build = ROOT / "build" / ("emulate-sanitized" if sanitized() else "emulate")
    tools = Path(sys.executable).parent
    path = os.pathsep.join([str(tools), os.environ.get("PATH", "")])
    # The compiler is not to run under the sanitizers, nor Python to look where they send it.
    hidden = ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "PYTHONPATH", "PYTHONMALLOC")
    environment = {key: value for key, value in os.environ.items() if key not in hidden} | {"PATH": path}
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=path) else []
    options = [
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DPYDEC_SANITIZE={'ON' if sanitized() else 'OFF'}",
    ]
    source = str(ROOT / "csrc" / "cuda" / "emulate")
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes wait, and find it built
        for command in (
            ["cmake", "-S", source, "-B", str(build), *generator, *options],
            ["cmake", "--build", str(build), "--parallel"],
        ):
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    (library,) = build.glob("_emulated_cuda.*.so")
    spec = importlib.util.spec_from_file_location("_emulated_cuda", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items):
    """The first test waits for the compiler, which its time limit is not meant for."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


class Emulated(torch.Tensor):  # type: ignore[name-defined,misc]
    """A tensor in the host's memory that says it is on a GPU, which is what the emulator takes."""

    __dlpack_c_exchange_api__ = None  # which knows better
    device = SimpleNamespace(type="cuda", index=0)


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
