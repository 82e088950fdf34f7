"""Everything that decides a rank's next step, as named tensors and JSON; and back.

Nested dictionaries, lists and numbers become JSON that gives the same Python objects again; tensors in
them are put under names of their own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pydec.errors import ConfigError
from pydec.train.checkpoint_files import OWN


def flatten(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a tree of dictionaries, lists, tuples, numbers, texts, None and tensors.

    Args:
        tree: what to write.
        name: of the tree; those of its tensors begin with it.
        tensors: gets the tree's tensors, not copied.

    Raises:
        ConfigError: something else is in the tree; the message names its place.
    """
    if isinstance(tree, Tensor):
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, np.ndarray):
        return {"array": flatten(torch.from_numpy(tree), name, tensors)["tensor"]}
    if isinstance(tree, np.generic):
        return flatten(tree.item(), name, tensors)
    if isinstance(tree, Mapping):
        pairs = [
            [flatten(key, name, tensors), flatten(value, f"{name}/{key}", tensors)]
            for key, value in tree.items()
        ]
        return {"dict": pairs}
    if isinstance(tree, (list, tuple)):
        items = [flatten(value, f"{name}/{i}", tensors) for i, value in enumerate(tree)]
        return {"tuple": items} if isinstance(tree, tuple) else items
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"float": str(tree)}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise ConfigError(
        f"{name.removeprefix(OWN)} is a {type(tree).__name__}, which a checkpoint cannot hold; use "
        "tensors and numbers there, or --keep-last 0 for a run without checkpoints"
    )


def unflatten(found: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that ``flatten`` was given."""
    if isinstance(found, list):
        return [unflatten(value, tensors) for value in found]
    if not isinstance(found, dict):
        return found
    (kind, value), *_ = found.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "array":
        return tensors[value].numpy()
    if kind == "dict":
        return {unflatten(key, tensors): unflatten(entry, tensors) for key, entry in value}
    if kind == "tuple":
        return tuple(unflatten(entry, tensors) for entry in value)
    return float(value)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and buffers under their own names, not copied.

    Raises:
        ConfigError: its state holds something that is no tensor, or has a name that pydec uses itself.
    """
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or name.startswith(OWN):
            raise ConfigError(
                f"{name} of the model's state is a {type(value).__name__}; a checkpoint holds tensors whose "
                f"names do not begin with {OWN!r}; keep such state elsewhere, or use --keep-last 0"
            )
        found[name] = value
    return found


def random_state() -> dict[str, Any]:
    """State of the generators that programs use without asking: torch's, its GPUs', NumPy's and Python's.

    A generator that a data set or a module holds itself is not among them.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002  # it is the global one
    version, internal, following = random.getstate()
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, np.asarray(keys).astype(np.int64), position, has_gauss, gauss],
        "python": [version, np.array(internal, np.int64), following],
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def set_random_state(found: Mapping[str, Any]) -> None:
    """Continue from ``random_state()``."""
    torch.set_rng_state(found["torch"])
    kind, keys, position, has_gauss, gauss = found["numpy"]
    np.random.set_state((kind, keys.astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002  # as above
    version, internal, following = found["python"]
    random.setstate((version, tuple(internal.tolist()), following))
    if "cuda" in found and torch.cuda.is_available() and len(found["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(found["cuda"])
