"""What `torch.compile` puts in the place of a kernel's wrapper; without torch, and free for eager calls.

A wrapper carries its stand-in as an attribute that the compiler looks for, as functions wrapped by
`torch.compile` carry theirs; eager calls never see it. The stand-in calls an operator of
`pydec.kernels.ops`, which is imported, with torch, when the compiler first comes by.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

WRITES: dict[str, tuple[str, ...]] = {
    "block_topk_accumulate": ("out",),
    "block_topk_check": (),
    "block_topk_decode": ("out",),
    "block_topk_select": ("residual", "indices", "values"),
    "cast_accumulate": ("out",),
    "cast_count_nonfinite": (),
    "cast_decode": ("out",),
    "cast_encode": ("codes", "residual"),
    "checked_sqnorm": (),
    "choco_absorb": ("x", "estimate", "mixed"),
    "choco_step": ("x", "estimate", "mixed", "codes", "scales"),
    "clip_accumulate": ("out",),
    "count_nonfinite": (),
    "gaps_pack": ("out",),
    "gaps_unpack": ("indices",),
    "demo_accumulate": ("out",),
    "demo_check": (),
    "demo_decode": ("out",),
    "demo_encode": ("residual", "records"),
    "gram": ("out",),
    "mean_around_median": ("out", "largest"),
    "median": ("out", "largest"),
    "mix": ("out",),
    "momentum_mix": ("velocity", "out"),
    "powersgd_accumulate": ("out",),
    "powersgd_decode": ("out",),
    "powersgd_iterate": ("residual", "left", "right"),
    "powersgd_start": ("start",),
    "push_sum_mix": ("out", "ratio"),
    "quant_accumulate": ("out",),
    "quant_check": (),
    "quant_decode": ("out",),
    "quant_encode": ("codes", "scales", "residual"),
    "quant_encode_difference": ("codes", "scales"),
    "quant_pair_sqdists": ("out",),
    "quant_sqdist": (),
    "quant_sqdists": ("out",),
    "randk_accumulate": ("out",),
    "randk_gather": ("values",),
    "randk_key": ("residual",),
    "randk_scatter": ("out",),
    "scatter_accumulate": ("out",),
    "sparse_accumulate": ("out",),
    "sparse_check": (),
    "sparse_decode": ("out",),
    "sqdist": (),
    "sqdists": ("out",),
    "sqnorm": (),
    "stream_copy": ("out",),
    "threshold_select": ("residual", "entries"),
    "topk_feedback": ("residual", "indices", "values"),
    "topk_int8_accumulate": ("out",),
    "topk_int8_decode": ("out",),
    "topk_int8_encode": ("residual", "body"),
    "topk_select": ("indices", "values"),
    "tracking_mix": ("previous", "out"),
    "trimmed_mean": ("out", "largest"),
}
"""Every kernel that is an operator, and its parameters that are written, in any order."""

CONSTANT = (
    "block_topk_count", "demo_bytes", "gaps_bound", "quant_blocks", "quant_bytes", "quant_group",
    "randk_count", "topk_int8_bound",
)  # fmt: skip
"""Functions of numbers alone: the compiler calls them and keeps the answer."""


def attach(name: str, wrapper: Callable[..., Any]) -> None:
    """Give the wrapper of a kernel in ``WRITES`` its stand-in."""
    parameters = inspect.signature(wrapper).parameters
    names = tuple(parameters)
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        from pydec.kernels import ops

        return ops.call(name, {**defaults, **dict(zip(names, args, strict=False)), **kwargs})

    set_stand_in(wrapper, stand_in)


def set_stand_in(wrapper: Callable[..., Any], stand_in: Callable[..., Any]) -> None:
    """Let the compiler follow ``stand_in`` where a program calls ``wrapper``."""
    vars(wrapper)["_torchdynamo_inline"] = stand_in


def _choco_step(step: Any, *args: Any, **kwargs: Any) -> Any:
    from pydec.kernels import ops

    values = {
        **dict(zip(("x", "estimate", "mixed", "codes", "scales", "gradient"), (*args, None), strict=False)),
        "key": None,
        "first": 0,
        **kwargs,
        "gamma": step.gamma,
        "own_weight": step.own_weight,
        "lr": step.lr,
        "codec": step.codec,
        "block": step.block,
    }
    return ops.call("choco_step", values)


def _squared_distances(gram_matrix: Any) -> Any:
    from pydec.kernels import ops

    return ops.squared_distances(gram_matrix)


# Operators have no lists of lists, and a graph no call overhead: it gets the calls one by one. The total of
# an encoding without buckets is 0.


def _mix_many(x: Any, weights: Any, out: Any) -> Any:
    from pydec.kernels import ops

    for b in range(len(out)):
        ops.call("mix", {"x": [vectors[b] for vectors in x], "weights": weights, "out": out[b]})
    return out


def _quant_encode_many(
    x: Any,
    codes: Any,
    scales: Any,
    codec: Any,
    block: Any,
    *,
    residual: Any = None,
    key: Any = None,
    first: int = 0,
) -> Any:
    from pydec.kernels import ops

    bad: Any = 0
    for b in range(len(x)):
        values = {"x": x[b], "codes": codes[b], "scales": scales[b], "codec": codec, "block": block}
        values |= {"residual": None if residual is None else residual[b], "key": key, "first": first}
        bad = bad + ops.call("quant_encode", values)
        first += -(-x[b].numel() // 16) * 16
    return bad


def _quant_accumulate_many(codes: Any, scales: Any, weights: Any, out: Any, codec: Any, block: Any) -> Any:
    from pydec.kernels import ops

    for b in range(len(out)):
        values = {"codes": [items[b] for items in codes], "scales": [items[b] for items in scales]}
        values |= {"weights": weights, "out": out[b], "codec": codec, "block": block}
        ops.call("quant_accumulate", values)
    return out


def attach_all(namespace: dict[str, Any]) -> None:
    """Prepare the kernels of a namespace, by their names, for the compiler."""
    for name in WRITES:
        if name in namespace:
            attach(name, namespace[name])
    set_stand_in(namespace["ChocoStep"].run, _choco_step)
    set_stand_in(namespace["squared_distances"], _squared_distances)
    set_stand_in(namespace["mix_many"], _mix_many)
    set_stand_in(namespace["quant_encode_many"], _quant_encode_many)
    set_stand_in(namespace["quant_accumulate_many"], _quant_accumulate_many)
    for name in CONSTANT:
        vars(namespace[name])["_dynamo_marked_constant"] = True
