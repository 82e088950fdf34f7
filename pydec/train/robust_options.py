"""What the options of robust runs may say, whatever the graph; and the momentum that they have by default."""

from __future__ import annotations

import re

from pydec.aggregate import attacks
from pydec.errors import ConfigError
from pydec.gossip import make_robust
from pydec.train import optimizers

ACCOUNTABLE = ("on", "off", "auto")
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


def check_accountable(accountable: str, audit: float, ledger: str, private: bool) -> None:
    """Raise ConfigError for a choice that is none, or that lacks a ledger."""
    if not 0.0 <= audit <= 1.0:
        raise ConfigError(f"--audit is a share of the computation in (0, 1], such as 0.01, got {audit}")
    if audit and (accountable == "off" or not ledger):
        raise ConfigError(
            "--audit judges what ranks have signed, on the ledger; name its directory with --ledger DIR, and "
            "leave --accountable off out"
        )
    if audit and private:
        raise ConfigError(
            "--audit lets others run a rank's steps again, and with --dp-noise nobody else may know what was "
            "drawn in them; leave one of them out"
        )
    if accountable not in ACCOUNTABLE:
        raise ConfigError(f"--accountable must be one of {', '.join(ACCOUNTABLE)}, got {accountable!r}")
    if accountable == "on" and not ledger:
        raise ConfigError(
            "--accountable on signs packets with the ranks' keys on the ledger, which judges them; name its "
            "directory with --ledger DIR"
        )


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
