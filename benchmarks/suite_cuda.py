"""CUDA kernels on one GPU beside torch, torch.compile, Triton and CuPy, and their share of a copy's speed;
and whole rounds of gossip with a model on the GPU, averaged there or in host memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from pydec.errors import SetupError
from pydec.kernels import cuda, cuda_status

from . import cases_cuda_round
from .cases_cuda import MAKERS, Action, Device, GpuCase, feedback_int8
from .cases_cuda_coded import MAKERS as CODED
from .harness import Options, Row

ELEMENTS = 1 << 28  # 1 GiB of float32
SMALL = (1 << 18, 1 << 22)  # 1 and 16 MiB, where launches count
SETS = 3  # of buffers: no call finds its input in the cache
SPARE_BYTES = 6 << 30  # what peers allocate on their way


def rows(options: Options) -> Iterator[Row]:
    """One row for each kernel and peer; ``floor_fraction`` is against torch's copy in the same rounds.

    Raises:
        SetupError: no GPU, or a build without the CUDA kernels.
    """
    if not torch.cuda.is_available():
        raise SetupError(f"pydec bench cuda measures a GPU, and torch sees none here; pydec: {cuda_status()}")
    cuda.native()
    n = 1 << 20 if options.quick else ELEMENTS
    rounds = options.rounds or (3 if options.quick else 30)
    device = Device()
    for make in (*MAKERS, *CODED):
        case = make(device)
        yield from measured(case, n, rounds)
        torch.cuda.empty_cache()
    for small in SMALL:
        yield from replayed(feedback_int8(device), small, rounds)
    yield from cases_cuda_round.rows(1 << 20 if options.quick else cases_cuda_round.ELEMENTS, rounds)


def measured(case: GpuCase, n: int, rounds: int) -> Iterator[Row]:
    """Rows of one case, with its peers, on as many sets of buffers as fit, at most ``SETS``."""
    first = case.make(n, 0)
    case.check(first)
    free, _ = torch.cuda.mem_get_info()
    copies = 8 * n
    fit = 1 + max(0, free - copies - SPARE_BYTES) // max(1, sum(map(_bytes, first.values())))
    sets = [first, *(case.make(n, seed) for seed in range(1, min(SETS, fit)))]
    source, target = torch.ones(n, device="cuda"), torch.empty(n, device="cuda")
    timings = interleaved(
        {"ours": case.ours, **case.peers, "copy": lambda _: target.copy_(source)}, sets, rounds
    )
    copy_gbps = 8e-6 * n / timings["copy"]
    facts = {"n": n, "gpu": torch.cuda.get_device_name(), "sets": len(sets), "rounds": rounds}
    facts["copy_gbps"] = round(copy_gbps)
    fraction = case.bytes_per_element * 1e-6 * n / timings["ours"] / copy_gbps
    for peer in case.peers:
        theirs, ours = timings[peer], timings["ours"]
        yield Row("cuda", case.name, facts, ours, "ms", peer, theirs, theirs / ours, fraction)
    for peer, why in case.left_out.items():
        yield Row("cuda", case.name, facts, timings["ours"], "ms", f"{peer}: {why}", None, None, fraction)


def replayed(case: GpuCase, n: int, rounds: int) -> Iterator[Row]:
    """A row of our kernel replayed as a CUDA graph, beside the same as a call."""
    buffers = case.make(n, 0)
    case.check(buffers)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        case.ours(buffers)
    timings = interleaved({"graph": lambda _: graph.replay(), "call": case.ours}, [buffers], rounds)
    facts = {"n": n, "gpu": torch.cuda.get_device_name(), "rounds": rounds}
    yield Row(
        "cuda",
        f"{case.name}, as a graph",
        facts,
        timings["graph"],
        "ms",
        "the same as a call",
        timings["call"],
        timings["call"] / timings["graph"],
    )


def interleaved(
    contenders: Mapping[str, Action], sets: list[dict[str, Any]], rounds: int, warmup: int = 3
) -> dict[str, float]:
    """Median milliseconds of each action, timed by the GPU, in turn and on one set after the other.

    Args:
        contenders: actions by name; each must be repeatable.
        sets: buffers that the actions work on.
        rounds: timed rounds.
        warmup: untimed rounds before; torch.compile compiles in the first.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for current in range(warmup + rounds):
        events = {}
        for turn, name in enumerate(order if current % 2 == 0 else reversed(order)):
            buffers = sets[(current + turn) % len(sets)]
            events[name] = _timed(lambda name=name, buffers=buffers: contenders[name](buffers))  # type: ignore[misc]
        torch.cuda.synchronize()
        if current < warmup:
            continue
        for name, (start, end) in events.items():
            times[name].append(start.elapsed_time(end))
    return {name: statistics.median(found) for name, found in times.items()}


def _timed(action: Callable[[], object]) -> tuple[torch.cuda.Event, torch.cuda.Event]:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    action()
    end.record()
    return start, end


def _bytes(value: object) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, list) else 0
