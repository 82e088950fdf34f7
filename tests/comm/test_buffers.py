"""Memory and addresses are checked once, for all transports."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.comm.buffers import flat


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0, 4)])
def test_any_contiguous_array_becomes_its_bytes(dtype, shape):
    array = np.zeros(shape, dtype)
    view = flat(memoryview(array), writable=True)
    assert (view.format, view.ndim, len(view)) == ("B", 1, array.nbytes)
    if array.nbytes:
        view[0] = 1
        assert array.tobytes()[0] == 1


def test_memory_of_a_gpu_is_left_to_mpi():
    class OnGpu:
        __cuda_array_interface__: dict[str, object] = {}  # noqa: RUF012

    data = OnGpu()
    assert flat(data, writable=True) is data
