"""State as JSON and tensors: the same objects come back, what cannot is named, generators go on."""

# ruff: noqa: NPY002  # the generator that is meant is the global one
from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch

from pydec.errors import ConfigError
from pydec.train.checkpoint_state import flatten, model_tensors, random_state, set_random_state, unflatten


def test_a_tree_comes_back_as_it_was():
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "m": torch.ones(2)}, 7: {}},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1], "flag": True, "none": None}],
        "odd": [math.inf, -math.inf, {"tensor": "a name", "dict": 3}],
    }
    tensors: dict[str, torch.Tensor] = {}
    found = unflatten(json.loads(json.dumps(flatten(tree, "pydec/x", tensors), allow_nan=False)), tensors)
    assert found == tree
    assert set(tensors) == {"pydec/x/state/0/step", "pydec/x/state/0/m"}
    assert found["state"][0]["m"] is tree["state"][0]["m"]
    assert isinstance(found["groups"][0]["betas"], tuple)
    assert math.isnan(unflatten(flatten(math.nan, "x", {}), {}))
    assert type(unflatten(flatten(np.float32(1.5), "x", {}), {})) is float


def test_an_object_that_is_no_data_is_named_by_its_place():
    with pytest.raises(
        ConfigError, match="optimizer/state/0/hook is a function, which a checkpoint cannot hold"
    ):
        flatten({"state": {0: {"hook": math_hook}}}, "pydec/optimizer", {})


def math_hook() -> None:
    """Nothing."""


def test_state_of_a_model_that_is_no_tensor_is_refused():
    class Counting(torch.nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

    with pytest.raises(ConfigError, match="_extra_state of the model's state is a dict"):
        model_tensors(Counting(2, 2))


def test_all_three_generators_go_on_where_they_were():
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.gauss(0, 1)
        np.random.randn(3)
        tensors: dict[str, torch.Tensor] = {}
        words = json.loads(json.dumps(flatten(random_state(), "pydec/random", tensors)))
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        first = draw()
        set_random_state(unflatten(words, kept))
        assert draw() == first
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def draw() -> list[float]:
    return [random.gauss(0, 1), random.random(), float(np.random.randn()), float(torch.randn(1))]
