"""The pool of threads: its size, what it survives, and that callers do not disturb each other."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pydec import kernels
from pydec.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def normal(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal(n, dtype=np.float32)


def test_numbers_that_make_no_sense_are_refused():
    kernels.set_num_threads(1024)
    for wrong in (0, -1, 1025):
        with pytest.raises(ConfigError, match=rf"num_threads must be in 1\.\.1024, got {wrong}$"):
            kernels.set_num_threads(wrong)
    assert kernels.num_threads() == 1024
    with pytest.raises(TypeError):
        kernels.set_num_threads("2")  # type: ignore[arg-type]


def threads_of_a_process(environment: dict[str, str], cpus: set[int]) -> int:
    code = (
        f"import os; os.sched_setaffinity(0, {sorted(cpus)!r}); "
        "from pydec import kernels; print(kernels.num_threads())"
    )
    rest = {name: value for name, value in os.environ.items() if "LOCAL" not in name and "TASKS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**rest, **environment}, capture_output=True, check=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_threads_are_the_cpus_of_the_mask_over_the_ranks_of_the_node():
    cpus = os.sched_getaffinity(0)
    assert threads_of_a_process({}, cpus) == min(len(cpus), 1024)
    assert threads_of_a_process({}, {min(cpus)}) == 1
    for name in ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"):
        assert threads_of_a_process({name: "2"}, cpus) == max(1, len(cpus) // 2)
        assert threads_of_a_process({name: "100000"}, cpus) == 1
        assert threads_of_a_process({name: "many"}, cpus) == len(cpus)
    assert threads_of_a_process({"SLURM_TASKS_PER_NODE": "2(x3),1"}, cpus) == max(1, len(cpus) // 2)
    both = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "SLURM_NTASKS_PER_NODE": "2"}
    assert threads_of_a_process(both, cpus) == len(cpus)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_helpers_start_with_the_first_large_call_and_not_before():
    code = (
        "import os, numpy as np; from pydec import kernels\n"
        "def count(): return len(os.listdir('/proc/self/task'))\n"
        "before = count(); kernels.set_num_threads(3)\n"
        "kernels.sqnorm(np.ones(1000, np.float32)); assert count() == before\n"
        "kernels.sqnorm(np.ones(1 << 20, np.float32)); assert count() == before + 2, count()\n"
        "kernels.sqnorm(np.ones(1 << 20, np.float32)); assert count() == before + 2, count()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def work() -> tuple[float, int]:
    result = kernels.sqnorm(normal(1_000_000))
    return result, len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_a_forked_child_starts_helpers_of_its_own():
    kernels.set_num_threads(4)
    expected = work()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork in a process with threads
        with multiprocessing.get_context("fork").Pool(2) as children:
            result, count = children.apply_async(work).get(60)
    assert result == expected
    assert count >= 4
    assert work()[0] == expected


def test_a_child_forked_in_the_middle_of_a_call_does_not_hang():
    kernels.set_num_threads(3)
    stop = threading.Event()
    x = normal(1 << 22)
    expected = kernels.sqnorm(x)

    def keep_busy() -> None:
        while not stop.is_set():
            kernels.sqnorm(x)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        for _ in range(20):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                os._exit(0 if kernels.sqnorm(x) == expected else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        busy.join()


def test_calls_from_several_python_threads_do_not_disturb_each_other():
    kernels.set_num_threads(3)
    x, y = normal(600_000), normal(600_001)[1:]
    calls: list[Callable[[], object]] = [
        lambda: kernels.mix([x, y], [0.5, 0.25]).tobytes(),
        lambda: kernels.sqdist(x, y),
        lambda: kernels.median([x, y, x]).tobytes(),
        lambda: kernels.gram([x, y]).tobytes(),
    ]
    expected = [call() for call in calls]
    found: list[list[object]] = [[] for _ in calls]

    def caller(index: int) -> None:
        found[index] += [calls[index]() for _ in range(10)]

    callers = [threading.Thread(target=caller, args=(index,)) for index in range(len(calls))]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert found == [[result] * 10 for result in expected]


def test_torch_threads_and_these_live_together():
    code = (
        "import numpy as np, torch; from pydec import kernels\n"
        "torch.set_num_threads(2); kernels.set_num_threads(2)\n"
        "x = torch.ones(1 << 20)\n"
        "for _ in range(20):\n"
        "    x = torch.sin(x) + 1\n"
        "    kernels.mix([x.numpy(), x.numpy()], [0.5, 0.5], x.numpy())\n"
        "assert torch.get_num_threads() == kernels.num_threads() == 2\n"
        "print(float(x[0]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("sanitizer", ["none", "thread", "address,undefined"])
def test_the_pool_keeps_its_promises_under_sanitizers(sanitizer, tmp_path):
    compiler = shutil.which("c++") or shutil.which("g++")
    assert compiler, "needs a C++ compiler"
    program = str(tmp_path / "pool")
    options = ["-std=c++20", "-O1", "-g", "-pthread", f"-I{ROOT / 'csrc' / 'include'}"]
    if sanitizer != "none":
        options.append(f"-fsanitize={sanitizer}")
        empty = tmp_path / "empty.cpp"
        empty.write_text("int main() {}\n")
        probe = subprocess.run([compiler, *options, str(empty), "-o", program], check=False)
        if probe.returncode or subprocess.run([program], check=False).returncode:
            pytest.skip(f"-fsanitize={sanitizer} does not work here")
    sources = [
        ROOT / "csrc/core/pool.cpp",
        ROOT / "csrc/core/cpus.cpp",
        ROOT / "tests/kernels/pool_check.cpp",
    ]
    subprocess.run([compiler, *options, *map(str, sources), "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, check=False, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def streamed(n: int) -> list[np.ndarray]:
    out = np.zeros(n + 5, np.float32)[5:]  # not aligned to a line
    median_out, ratio, copied = np.zeros((3, n + 3), np.float32)[:, 3:]
    x = [normal(n) + np.float32(k) for k in range(3)]
    return [
        kernels.mix(x, [0.2, 0.3, 0.5], out).copy(),
        kernels.push_sum_mix(x, [0.2, 0.3, 0.5], 0.7, out, ratio),
        kernels.median(x, median_out),
        kernels.stream_copy(x[1], copied),
    ]


def test_outputs_past_the_caches_have_the_same_bits(target):
    n = (1 << 22) + 12_345
    kernels.set_num_threads(1)
    expected = streamed(n)
    kernels.set_num_threads(3)
    for found, other in zip(streamed(n), expected, strict=True):
        assert found.tobytes() == other.tobytes()
