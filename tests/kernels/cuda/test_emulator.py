"""The emulator sees the mistakes that kernels are tested for."""

from __future__ import annotations

import numpy as np
import pytest

FAULTS = [
    "threads wait at __syncthreads of line .* for others that never come",
    "threads of a block wait at different __syncthreads",
    "lanes wait in a warp function for others that never come",
    "lanes of a warp call different warp functions",
    "a warp function's mask is not the whole warp",
    "misaligned vector access",
]
RACE, GARBAGE = 6, 7


@pytest.fixture
def emulated(gpu):
    if gpu.device != "cpu":
        pytest.skip("the mistakes would be undefined behaviour")
    return gpu


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_mistakes_end_a_launch_with_an_error(emulated, number):
    x = emulated.tensor(np.zeros(8, np.float32))
    with pytest.raises(RuntimeError, match=FAULTS[number]):
        emulated.module.run_fault(number, x)
    emulated.module.mix_f32([[x]], [1.0], [x])  # and the next one is not affected


def test_races_show_in_different_orders(emulated):
    seen = set()
    for seed in range(8):
        emulated.module.configure(multiprocessors=1, seed=seed)
        x = emulated.tensor(np.zeros(8, np.float32))
        emulated.module.run_fault(RACE, x)
        seen.add(x.numpy().tobytes())
    assert len(seen) > 1


def test_shared_memory_starts_as_garbage(emulated):
    x = emulated.tensor(np.zeros(8, np.float32))
    emulated.module.run_fault(GARBAGE, x)
    assert x[0] == 1.0
