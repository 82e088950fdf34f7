"""Every kernel runs on every instruction set of this CPU; helpers that the kernel tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import kernels


@pytest.fixture(autouse=True)
def _restore_target() -> Iterator[None]:
    before = kernels.target()
    yield
    kernels.set_target(before)


@pytest.fixture(params=kernels.targets())
def target(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each instruction set that this CPU has."""
    kernels.set_target(request.param)
    return str(request.param)


@pytest.fixture
def unaligned() -> Callable[[NDArray[np.generic]], NDArray[np.generic]]:
    """Copies an array to an odd address, as a payload's fields have after its first byte."""

    def move(array: NDArray[np.generic]) -> NDArray[np.generic]:
        room = np.zeros(array.nbytes + 1, np.uint8)
        view = room[1:].view(array.dtype)
        view[...] = array
        return view

    return move
