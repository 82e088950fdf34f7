"""A GPU for machines without one: the CUDA kernels compiled as C++, and tensors that say they are on it.

The emulator is the kernels and their bindings (csrc/cuda/emulate); its build lies in ``build/emulate`` and is
brought up to date when a test first asks for it.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pydec.gossip.place import Event, Place

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[1]


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


class Emulated(torch.Tensor):  # type: ignore[name-defined,misc]
    """A tensor in the host's memory that says it is on a GPU, which is what the emulator takes."""

    __dlpack_c_exchange_api__ = None  # which knows better
    device = SimpleNamespace(type="cuda", index=0)


class EmulatedPlace(Place):
    """A GPU whose memory is the host's, and whose copies to pinned memory show only when they are waited for.

    What is copied to the GPU is there at once, and must still be what it was when the next event has passed.
    """

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.copies: list[tuple[Any, Any, bool]] = []
        """Under way: where to, or from; what; and whether to pinned memory."""
        self.waits = 0
        """Events that were waited for with copies under way."""

    def __str__(self) -> str:
        return "emulated"

    def zeros(self, n, dtype):
        return self.seen(torch.zeros(n, dtype=dtype))

    def seen(self, tensor):
        return tensor.as_subclass(Emulated)

    def event(self):
        return EmulatedEvent(self)

    def up(self, out, source):
        out.copy_(source)
        self.copies.append((source, source.clone(), False))

    def down(self, out, source):
        self.copies.append((out, source.clone().as_subclass(torch.Tensor), True))
        out.fill_(0xA5)

    def message(self, tensor):
        return memoryview(tensor.numpy())


class EmulatedEvent(Event):
    """Of an emulated place: waiting for it ends the copies that were begun before it was recorded."""

    def __init__(self, place: EmulatedPlace) -> None:
        super().__init__(place.device)
        self._place = place
        self._before: list[tuple[Any, Any, bool]] = []

    def record(self):
        self._before = list(self._place.copies)

    def done(self):
        return not self._before

    def wait(self):
        under_way = {id(copy) for copy in self._place.copies}
        waiting, self._before = self._before, []
        for copy in waiting:
            if id(copy) not in under_way:
                continue
            memory, content, down = copy
            if down:
                memory.copy_(content)
            else:
                assert torch.equal(memory, content), "pinned memory was written while a copy read it"
            self._place.waits += 1
            self._place.copies = [other for other in self._place.copies if other is not copy]
