"""The question to the MPI library, asked of stand-ins and of the one that is there."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from pydec.comm.gpu import library_paths, takes_gpu_memory


@pytest.mark.parametrize("answer", [0, 1])
def test_open_mpi_is_asked(answer):
    assert takes_gpu_memory(SimpleNamespace(MPIX_Query_cuda_support=lambda: answer)) is bool(answer)


@pytest.mark.parametrize(("status", "answer", "expected"), [(0, 1, True), (0, 0, False), (1, 1, False)])
def test_mpich_is_asked(status, answer, expected):
    def query(kind, pointer):
        assert kind == 0
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = answer
        return status

    assert takes_gpu_memory(SimpleNamespace(MPIX_GPU_query_support=query)) is expected


def test_a_library_that_does_not_say_takes_none():
    assert takes_gpu_memory(SimpleNamespace()) is False


def test_libraries_are_found_by_name():
    line = "7f00-7f01 r-xp 00000000 fe:01 42 {}"
    paths = [
        "/a/libmpi.so.40.40.7",
        "/a/libmpich.so.12",
        "/a/libmpi_cxx.so",
        "/a/libmpiwrap.txt",
        "/a/libm.so",
    ]
    assert library_paths([line.format(path) for path in paths]) == [
        "/a/libmpi.so.40.40.7",
        "/a/libmpich.so.12",
    ]


@pytest.mark.mpi(min_size=1)
def test_the_loaded_mpi_answers(mpi_transport):
    assert takes_gpu_memory() in (False, True)
