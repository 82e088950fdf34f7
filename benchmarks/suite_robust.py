"""Robust averages of 8 and 16 vectors on one thread beside torch, NumPy and, if there, ByzFL and byzpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

import numpy as np
import torch

from pydec import kernels

from .harness import Options, Row, copy_actions, copy_gbps, interleaved

F = 3
Rule = Callable[[], np.ndarray]


def _median(x: list[np.ndarray], stacked: np.ndarray) -> dict[str, Rule]:
    tensor, out = torch.from_numpy(stacked), np.zeros_like(x[0])
    return {
        "ours": lambda: kernels.median(x, out),
        "torch.quantile": lambda: torch.quantile(tensor, 0.5, dim=0).numpy(),
        "torch.sort": lambda: (
            torch.sort(tensor, dim=0).values[len(x) // 2 - 1 : len(x) // 2 + 1].mean(0).numpy()
        ),
        "numpy.median": lambda: np.median(stacked, axis=0),
        **_peers(x, "Median", {}, "median", "CoordinateWiseMedian", {}),
    }


def _trimmed_mean(x: list[np.ndarray], stacked: np.ndarray) -> dict[str, Rule]:
    tensor, out, stop = torch.from_numpy(stacked), np.zeros_like(x[0]), len(x) - F
    return {
        "ours": lambda: kernels.trimmed_mean(x, F, out),
        "torch.sort": lambda: torch.sort(tensor, dim=0).values[F:stop].mean(0).numpy(),
        "numpy.sort": lambda: np.sort(stacked, axis=0)[F:stop].mean(axis=0),
        **_peers(x, "TrMean", {"f": F}, "trimmed_mean", "CoordinateWiseTrimmedMean", {"f": F}),
    }


def _peers(
    x: list[np.ndarray],
    byzfl_name: str,
    byzfl_options: dict[str, int],
    byzpy_module: str,
    byzpy_name: str,
    byzpy_options: dict[str, int],
) -> dict[str, Rule]:
    """The same rule in the libraries that are installed, on lists of vectors as they take them."""
    found: dict[str, Rule] = {}
    tensors = [torch.from_numpy(v) for v in x]
    try:
        rules = import_module("byzfl.aggregators.aggregators")
    except ImportError:
        pass
    else:
        byzfl = getattr(rules, byzfl_name)(**byzfl_options)
        found["byzfl torch"] = lambda: byzfl(tensors).numpy()
        found["byzfl numpy"] = lambda: byzfl(x)
    try:
        module = import_module(f"byzpy.aggregators.coordinate_wise.{byzpy_module}")
    except ImportError:
        pass
    else:
        byzpy = getattr(module, byzpy_name)(**byzpy_options)
        found["byzpy"] = lambda: byzpy.aggregate(tensors).numpy()
    return found


def rows(options: Options) -> Iterator[Row]:
    """One row for each rule, count of vectors and peer; peers that want one array get it stacked before."""
    n = 1 << 14 if options.quick else 1 << 20
    rounds = options.rounds or (3 if options.quick else 5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for count in (8, 16):
            rng = np.random.default_rng(count)
            x = [rng.standard_normal(n, dtype=np.float32) for _ in range(count)]
            stacked = np.stack(x)
            for name, make in (("median", _median), ("trimmed mean", _trimmed_mean)):
                contenders = make(x, stacked)
                expected = contenders["ours"]().copy()
                for peer, action in contenders.items():
                    if peer != "byzpy" or name != "median":  # byzpy's median is the lower middle
                        np.testing.assert_allclose(action(), expected, atol=1e-6, err_msg=peer)
                timings = interleaved({**contenders, **copy_actions(n)}, rounds, warmup=1)
                ours_s = timings["ours"].median_s
                floor = 4e-9 * n * (count + 1) / ours_s / copy_gbps(timings, n)
                for peer in list(contenders)[1:]:
                    yield Row(
                        suite="robust",
                        name=f"{name} of {count}",
                        params={"n": n, "m": count, "f": F, "threads": 1, "rounds": rounds},
                        value=ours_s * 1e3,
                        unit="ms",
                        peer=peer,
                        peer_value=timings[peer].median_s * 1e3,
                        ratio=timings[peer].median_s / ours_s,
                        floor_fraction=floor,
                    )
    finally:
        torch.set_num_threads(threads)
