"""Native kernels on one thread and on two beside their peers, and their share of what the memory can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from . import cases, cases_calls, cases_libraries, cases_lowrank, cases_quant, cases_robust, cases_sparse
from .harness import Options, Row, copy_actions, copy_gbps, interleaved, pages, threads

MAKERS: list[Callable[[int], cases.Case]] = [
    lambda n: cases.mix(n, 3),
    lambda n: cases.topk(n, 0.01),
    lambda n: cases.topk(n, 0.001),
    cases.sqdist,
    cases_robust.choco_step,
    lambda n: cases_robust.push_sum(n, 2),
    lambda n: cases_robust.momentum(n, 2),
    lambda n: cases_robust.clip(n, 4),
    *cases_quant.MAKERS,
    *cases_libraries.MAKERS,
    *cases_sparse.MAKERS,
    *cases_lowrank.MAKERS,
]

TWO_THREADS: list[Callable[[int], cases.Case]] = [
    lambda n: cases.mix(n, 3),
    lambda n: cases_quant.encode(n, "int8"),
    cases_robust.choco_step,
    lambda n: cases_robust.median(n, 8),
    lambda n: cases.topk(n, 0.01),
]
"""Those that two threads are measured on, beside a copy by two threads, where memory bounds them."""

ROUNDS = {1 << 20: 101, 1 << 24: 15, 1 << 26: 7}
"""By number of elements: 4 MiB, which stay in the caches, 64 and 256 MiB of float32."""
COLD_ELEMENTS = 1 << 24
"""Where peers that allocate their results are also measured on new pages."""


def rows(options: Options) -> Iterator[Row]:
    """Rows of what a call costs, then one for each kernel, size and peer.

    ``floor_fraction`` is against the faster of two copies.
    """
    sizes = [1 << 16] if options.quick else list(ROUNDS)
    with threads(1):
        yield from cases_calls.rows(options.rounds or (3 if options.quick else 101))
    for n in sizes:
        rounds = options.rounds or (3 if options.quick else ROUNDS[n])
        with threads(1):
            for make in MAKERS:
                yield from _measured(make(n), n, rounds, 1)
    for n in sizes if options.quick else [1 << 24]:
        rounds = options.rounds or (3 if options.quick else ROUNDS[n])
        with threads(2):
            for make in TWO_THREADS:
                yield from _measured(make(n), n, rounds, 2)


def _measured(case: cases.Case, n: int, rounds: int, n_threads: int) -> Iterator[Row]:
    """Rows of one case; peers that allocate in every call get one more, on pages that are new every time."""
    case.check()
    with pages(fresh=False):
        timings = interleaved({"ours": case.ours, **case.peers, **copy_actions(n)}, rounds)
    case.check()
    ours_s = timings["ours"].median_s
    row = Row(
        suite="kernels",
        name=case.name,
        params={**case.params, "threads": n_threads, "rounds": rounds},
        value=ours_s * 1e3,
        unit="ms",
        floor_fraction=case.n_bytes * 1e-9 / ours_s / copy_gbps(timings, n),
    )
    for peer in case.peers:
        peer_s = timings[peer].median_s
        yield replace(row, peer=peer, peer_value=peer_s * 1e3, ratio=peer_s / ours_s)
    for peer, reason in case.left_out.items():
        yield replace(row, peer=f"{peer}: {reason}")
    if case.allocating and n == COLD_ELEMENTS:
        with pages(fresh=True):
            contenders = {peer: case.peers[peer] for peer in case.allocating}
            timings = interleaved({"ours": case.ours, **contenders}, rounds)
        ours_s = timings["ours"].median_s
        for peer in contenders:
            peer_s = timings[peer].median_s
            cold = replace(row, value=ours_s * 1e3, peer=f"{peer}, new pages", floor_fraction=None)
            yield replace(cold, peer_value=peer_s * 1e3, ratio=peer_s / ours_s)
