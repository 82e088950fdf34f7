"""Loads the compiled kernels and chooses the instruction set that they run on."""

from __future__ import annotations

import os

from pydec.errors import ConfigError, SetupError

try:
    from pydec import _native
except ImportError as error:
    raise SetupError(
        f"pydec's compiled kernels cannot be loaded ({error}); build them with `pip install .`, or in a"
        " source checkout with `cmake -S . -B build -DPYDEC_IN_TREE=ON"
        " -Dpybind11_DIR=$(python -m pybind11 --cmakedir)` and `cmake --build build`"
    ) from error

native = _native


def targets() -> list[str]:
    """Instruction sets that this build contains and this CPU runs, slowest first, such as ["v2", "v3"].

    v2, v3 and v4 are the x86-64 levels (SSE4.2, AVX2, AVX-512); "baseline" is what other
    architectures have. Every kernel gives the same bits on all of them.
    """
    return native.targets()


def target() -> str:
    """The instruction set in use: the best of ``targets()`` unless ``PYDEC_SIMD`` names another."""
    return native.target()


def set_target(name: str) -> None:
    """Use another instruction set from now on, in the whole process.

    Raises:
        ConfigError: if ``name`` is not one of ``targets()``.
    """
    if not native.set_target(name):
        raise ConfigError(
            f"unknown kernel target {name!r}; available on this machine: {', '.join(targets())}"
        )


def cuda_status() -> str:
    """One line on the CUDA kernels: usable, or why not and what to do about it."""
    try:
        from pydec import _native_cuda
    except ImportError as error:
        if native.cuda_build != "on":
            return f"built without CUDA: {native.cuda_build}"
        return f"the CUDA module was built but does not load: {error}"
    try:
        count = _native_cuda.device_count()
    except RuntimeError as error:
        return f"built with CUDA {_native_cuda.toolkit}, but no device can be used: {error}"
    return f"built with CUDA {_native_cuda.toolkit}; {count} device{'' if count == 1 else 's'}"


def _choose_from_environment() -> None:
    name = os.environ.get("PYDEC_SIMD")
    if name and not native.set_target(name):
        raise ConfigError(
            f"PYDEC_SIMD={name!r} is not available on this machine; set it to one of {', '.join(targets())}, "
            "or unset it for the fastest"
        )


_choose_from_environment()
