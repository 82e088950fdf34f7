"""The kernels as operators of torch, ``torch.ops.pydec.*``, which `torch.compile` keeps in its graphs.

Compiled functions get them by calling the wrappers of ``pydec.kernels``: no graph breaks, and what an
operator writes is declared, so that the compiler orders it rightly. A program that builds graphs in other
ways (``make_fx``, non-strict ``torch.export``) calls the operators themselves. An operator has the
parameters of its wrapper, with every output given, and returns none of them.

Two things differ in a compiled function. Counts, sums and truth values that a wrapper returns are 0-d
tensors (int64, float64, bool), since a graph holds no Python numbers; to branch on one ends the graph, as
always. And nothing is recorded for autograd, as under ``torch.no_grad()``.

An eager call of an operator takes some microseconds more than its wrapper.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

from pydec import kernels
from pydec.kernels._arrays import Bytes, Vector
from pydec.kernels._compiled import WRITES
from pydec.kernels.quant import Codec

_TENSORS = {"State", "S", "Vector", "V", "Doubles", "Bytes", "UInt16s", "UInt32s", "Halves"}
_NUMBERS = {
    "int": "SymInt",
    "float": "float",
    "bool": "bool",
    "Codec": "str",
    "Half": "str",
    "DemoValues": "str",
}
_RESULTS = {"int": torch.int64, "float": torch.float64, "bool": torch.bool}
_KEY_SPAN = 1 << 64  # operators take signed integers: keys from 2^63 on become negative ones


def _choco_step(
    x: Vector,
    estimate: Vector,
    mixed: Vector,
    codes: Bytes,
    scales: Vector,
    gradient: Vector | None,
    gamma: float,
    own_weight: float,
    lr: float,
    codec: Codec,
    block: int,
    key: int | None,
    first: int,
) -> int:
    step = kernels.ChocoStep(gamma, own_weight, lr, codec, block)
    return step.run(x, estimate, mixed, codes, scales, gradient, key=key, first=first)


WRAPPERS: dict[str, Callable[..., Any]] = {
    "choco_step": _choco_step,
    **{name: getattr(kernels, name) for name in WRITES if name != "choco_step"},
}
"""What each operator runs, on any device that it has a kernel for."""


def _annotations(wrapper: Callable[..., Any]) -> dict[str, str]:
    return {key: p.annotation.replace(" ", "") for key, p in inspect.signature(wrapper).parameters.items()}


def _results(wrapper: Callable[..., Any]) -> list[torch.dtype]:
    """Types of the numbers that a wrapper returns; none if it returns an output."""
    returned = str(inspect.signature(wrapper).return_annotation)
    names = returned.removeprefix("tuple[").removesuffix("]").split(", ")
    return [_RESULTS[name] for name in names] if names[0] in _RESULTS else []


def schema(name: str) -> str:
    """The operator's signature, from its wrapper's: such as ``(Tensor x, Tensor(a0!) out) -> ()``."""
    parts = []
    for place, (key, annotation) in enumerate(_annotations(WRAPPERS[name]).items()):
        optional = "?" if annotation.endswith("|None") and key != "out" else ""
        annotation = annotation.removesuffix("|None")
        many = "[]" if annotation.startswith("Sequence[") else ""
        annotation = annotation.removeprefix("Sequence[").removesuffix("]")
        written = f"(a{place}!)" if key in WRITES[name] else ""
        kind = "Tensor" if annotation in _TENSORS else _NUMBERS[annotation]
        parts.append(f"{kind}{written}{many}{optional} {key}")
    returned = ", ".join("Tensor" for _ in _results(WRAPPERS[name]))
    return f"({', '.join(parts)}) -> ({returned})"


PARAMETERS = {name: tuple(_annotations(wrapper)) for name, wrapper in WRAPPERS.items()}
"""Names of each operator's parameters, in order."""


def _returned(wrapper: Callable[..., Any]) -> str | None:
    """The parameter that a wrapper returns: the one annotated with a variable, or an optional output."""
    outputs = ("S", "S|None", "V", "V|None", "Doubles|None")
    return next((key for key, kind in _annotations(wrapper).items() if kind in outputs), None)


_RETURNED = {name: _returned(wrapper) for name, wrapper in WRAPPERS.items()}


def _tensors(values: Iterator[Any] | tuple[Any, ...]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(tuple(value))


def _outcome(numbers: list[torch.Tensor]) -> Any:
    return None if not numbers else numbers[0] if len(numbers) == 1 else tuple(numbers)


def _implementation(name: str) -> Callable[..., Any]:
    wrapper, names, types = WRAPPERS[name], PARAMETERS[name], _results(WRAPPERS[name])

    def run(*args: Any) -> Any:
        values = dict(zip(names, args, strict=True))
        for key in ("key", "seed"):
            if isinstance(values.get(key), int):
                values[key] %= _KEY_SPAN
        if "keys" in values:
            values["keys"] = [key % _KEY_SPAN for key in values["keys"]]
        result = wrapper(**values)
        numbers = result if isinstance(result, tuple) else (result,)
        device = next(_tensors(args)).device
        return _outcome(
            [
                number.reshape(()).to(dtype)  # of a GPU kernel, which waits for nothing
                if isinstance(number, torch.Tensor)
                else torch.tensor(_signed(number), dtype=dtype, device=device)
                for number, dtype in zip(numbers, types, strict=False)
            ]
        )

    return run


def _fake(name: str) -> Callable[..., Any]:
    types = _results(WRAPPERS[name])

    def run(*args: Any) -> Any:
        device = next(_tensors(args)).device
        return _outcome([torch.empty((), dtype=dtype, device=device) for dtype in types])

    return run


def _signed(number: float) -> float:
    return number - _KEY_SPAN if number >= 1 << 63 and isinstance(number, int) else number


def _fill_in(name: str, values: dict[str, Any]) -> None:
    """Allocate the output of a wrapper that was called without."""
    if name in ("mix", "median", "trimmed_mean", "mean_around_median"):
        first = values["x"][0]
        values["out"] = torch.empty(first.shape, dtype=first.dtype, device=first.device)
    elif name == "sqdists":
        values["out"] = torch.empty(len(values["x"]), dtype=torch.float64, device=values["y"].device)
    elif name == "quant_pair_sqdists":
        m = len(values["codes"])
        values["out"] = torch.empty((m, m), dtype=torch.float64)
    elif name == "quant_sqdists":
        device = values["own_scales"].device
        values["out"] = torch.empty(len(values["codes"]), dtype=torch.float64, device=device)
    elif name == "gram":
        n = len(values["x"])
        values["out"] = torch.empty((n, n), dtype=torch.float64, device=values["x"][0].device)


def call(name: str, values: dict[str, Any]) -> Any:
    """Call an operator as its wrapper is called: what a compiled function does in the wrapper's place.

    Args:
        name: of the operator.
        values: all arguments of the wrapper by name.

    Returns:
        What the wrapper returns, numbers as 0-d tensors.
    """
    if "out" in values and values["out"] is None:
        _fill_in(name, values)
    for key in ("key", "seed"):
        if key in values and values[key] is not None:
            values[key] = _signed(values[key])
    if "keys" in values:
        values["keys"] = [_signed(key) for key in values["keys"]]
    with torch.no_grad():
        result = getattr(torch.ops.pydec, name).default(*[values[key] for key in PARAMETERS[name]])
    returned = _RETURNED[name]
    return result if returned is None else values[returned]


def squared_distances(gram_matrix: torch.Tensor) -> torch.Tensor:
    """``kernels.squared_distances`` in torch's own operations, which the compiler sees through."""
    sizes = gram_matrix.diagonal()
    squared = ((sizes[:, None] + sizes[None, :]) - 2.0 * gram_matrix).clamp_min(0.0)
    return torch.where(squared.isfinite(), squared, torch.inf)


_library: Any = torch.library.Library("pydec", "FRAGMENT")  # type: ignore[no-untyped-call]
for _name in WRAPPERS:
    _library.define(_name + schema(_name), tags=(torch.Tag.pt2_compliant_tag,))
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _implementation(_name), _device)
    torch.library.register_fake(f"pydec::{_name}", _fake(_name), lib=_library)
