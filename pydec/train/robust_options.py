"""What the options of robust runs may say, whatever the graph; and the momentum that they have by default."""

from __future__ import annotations

import re

from pydec.aggregate import attacks
from pydec.errors import ConfigError
from pydec.gossip import make_robust
from pydec.train import optimizers

MOMENTUM = 0.9
"""Of local SGD in robust runs that do not say: liars hide in the noise of single gradients.

Source: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
arXiv:2012.10333, section 4.
"""


def with_momentum(optimizer: str) -> str:
    """The optimiser with a momentum, if it is SGD and none is said."""
    name, _, options = optimizer.partition(":")
    said = any(item.partition("=")[0].strip() == "momentum" for item in options.split(","))
    return optimizer if name.strip() != "sgd" or said else optimizers.merge(optimizer, momentum=MOMENTUM)


def check_words(byzantine: str, attack: str, aggregate: str, algorithm: str) -> None:
    """Raise ConfigError for options that cannot mean anything, whatever the graph."""
    if byzantine and not re.fullmatch(r"[0-9]+|[0-9]+(,[0-9]+)*,?", byzantine):
        raise ConfigError(
            f"--byzantine must be a number, or ranks with commas such as 1,5, got {byzantine!r}"
        )
    if attack:
        attacks.make(attack)
        if not byzantine:
            raise ConfigError("--attack is what Byzantine ranks send; say how many there are: --byzantine N")
    if aggregate:
        if algorithm != "dpsgd":
            raise ConfigError(
                f"--aggregate {aggregate} is how models are averaged, and so is --algorithm {algorithm}; "
                "give one of them"
            )
        if aggregate != "auto":
            make_robust(aggregate)
