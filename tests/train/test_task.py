"""A task of one's own is found by module:function, and what is wrong with it is named."""

from __future__ import annotations

import sys
import textwrap
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from pydec.errors import ConfigError
from pydec.train import Task
from pydec.train.tasks import make, tasks

DATA = TensorDataset(torch.zeros(4, 1), torch.zeros(4, 1))
GOOD = {"model": nn.Linear(1, 1), "train": DATA, "loss": mse_loss}


@pytest.fixture
def module(tmp_path, monkeypatch):
    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


LINE = """
    import torch
    from torch.nn.functional import mse_loss
    from torch.utils.data import TensorDataset
    from pydec.train import Task

    def line(slope: float = 2.0, *, seed: int = 0) -> Task:
        x = torch.linspace(-1, 1, 100).unsqueeze(1)
        data = TensorDataset(x, slope * x + 1)
        return Task(model=torch.nn.Linear(1, 1), train=data, loss=mse_loss, facts={"seed": seed})

    def nothing():
        return None

    number = 3
"""


def test_a_function_of_ones_own_becomes_a_task_with_options(module):
    module("mine", LINE)
    task = make("mine:line:slope=3", seed=7)
    assert task.samples == 100
    assert task.facts == {"seed": 7}
    assert task.train[99][1].item() == pytest.approx(4.0)


def test_the_seed_decides_the_initial_values(module):
    module("mine", LINE)
    a, b, c = (make("mine:line", seed=seed).model.weight.item() for seed in (1, 1, 2))
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nosuch", r"unknown task 'nosuch'; known: fashion-mnist, .*stdlib-lm, or module:function"),
        ("nosuch:width=3", r"unknown task 'nosuch:width=3'"),
        ("nosuch:task", r"no module named 'nosuch' in the current directory"),
        ("mine:missing", r"module 'mine' has no 'missing'; it defines: line, nothing"),
        ("mine:number", r"'number' is no function but int"),
        ("mine:nothing", r"nothing\(\) must return a pydec.train.Task\(.*\), got None"),
        ("mine:line:curve=1", r"line has no option 'curve'; its options: slope"),
        ("mine:line:slope=steep", r"slope must be a number, got 'steep'"),
        ("broken:task", r"broken cannot be imported: "),
        ("needy:task", r"needy imports 'pydec_absent', which is not installed"),
        ("stdlib-lm:depth=3", r"stdlib-lm has no option 'depth'"),
    ],
)
def test_what_is_wrong_with_a_specification_is_named(module, spec, message):
    module("mine", LINE)
    module("broken", "def task(:\n")
    module("needy", "import pydec_absent\n")
    with pytest.raises(ConfigError, match=message):
        make(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": mse_loss}, r"Task.model must be a torch.nn.Module, got function"),
        ({"train": iter([])}, r"Task.train must be a map-style dataset .*, got list_iterator"),
        ({"train": []}, r"Task.train is empty"),
        ({"validation": 3}, r"Task.validation must be a map-style dataset"),
        ({"loss": None}, r"Task.loss must be a function, got None"),
        ({"metric": 0.5}, r"Task.metric must be a function, got float"),
        ({"optimizer": "sgd"}, r"Task.optimizer must be a function, got str"),
        ({"labels": [1, 2]}, r"Task.labels must be a one-dimensional integer tensor"),
        ({"labels": torch.zeros(3)}, r"Task.labels has 3 entries for the 4 samples"),
    ],
)
def test_what_is_wrong_with_a_task_is_named(change, message):
    with pytest.raises(ConfigError, match=message):
        Task(**{**GOOD, **change})


@pytest.mark.parametrize("name", tasks)
def test_every_task_has_a_summary(name):
    assert tasks.summary(name).endswith(".")
    assert partial(tasks.get, name)() is not None
