"""Does the MPI that is loaded take addresses on a GPU? Asked of the library itself, when a job runs."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_CUDA = 0  # MPIX_GPU_SUPPORT_CUDA of MPICH
_LIBRARY = re.compile(r"/libmpi(ch)?\.so[^/]*$")


def takes_gpu_memory(library: Any = None) -> bool:
    """Whether messages may lie in CUDA memory; False if the library does not say, or no MPI is loaded.

    Open MPI and MVAPICH answer ``MPIX_Query_cuda_support``, MPICH ``MPIX_GPU_query_support``; both are about
    this process, so an MPI built for GPUs that finds none says no. Call it after MPI is initialised.

    Args:
        library: what has the functions; the MPI library that this process has loaded if None.
    """
    library = _loaded() if library is None else library
    if hasattr(library, "MPIX_Query_cuda_support"):
        return bool(library.MPIX_Query_cuda_support() == 1)
    if hasattr(library, "MPIX_GPU_query_support"):
        answer = ctypes.c_int(0)
        return library.MPIX_GPU_query_support(_CUDA, ctypes.byref(answer)) == 0 and answer.value == 1
    return False


def library_paths(maps: Iterable[str]) -> list[str]:
    """Paths of MPI libraries among the lines of ``/proc/PID/maps``."""
    paths = {line.split(maxsplit=5)[5].strip() for line in maps if "/libmpi" in line}
    return sorted(path for path in paths if _LIBRARY.search(path))


def _loaded() -> ctypes.CDLL | None:
    try:
        paths = library_paths(Path("/proc/self/maps").read_text(encoding="utf-8").splitlines())
    except OSError:
        return None
    return ctypes.CDLL(paths[0]) if paths else None
