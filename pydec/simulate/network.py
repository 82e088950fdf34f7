"""The links between virtual peers: how long a message takes, on the virtual clock."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from pydec.errors import ConfigError

_RATES = {"kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
FORM = "RATE or UP/DOWN, then LATENCY and JITTER if you like: 100mbit,20ms or 20mbit/100mbit,20ms,5ms"


def duration_s(text: str, what: str) -> float:
    """Seconds of a word such as ``20ms``, ``1.5s`` or ``200us``.

    Args:
        text: the word.
        what: option that it was given with, for the error.

    Raises:
        ConfigError: another form.
    """
    found = re.fullmatch(f"({_NUMBER})(us|ms|s)", text.strip())
    if found is None:
        raise ConfigError(f"{what} must be a time such as 20ms, 1.5s or 200us, got {text!r}")
    return float(found[1]) * _TIMES[found[2]]


@dataclass(frozen=True)
class Link:
    """Every peer's link.

    Args:
        up_bytes_per_s: what it sends, one message after the other.
        down_bytes_per_s: what it receives.
        latency_s: from the first bit sent to the first bit received.
        jitter_s: the most that is added to the latency of a message, drawn uniformly.
    """

    up_bytes_per_s: float = math.inf
    down_bytes_per_s: float = math.inf
    latency_s: float = 0.0
    jitter_s: float = 0.0


def link(text: str) -> Link:
    """The link that ``--link`` describes; "" is one that costs no time.

    Raises:
        ConfigError: another form, or a rate of 0.
    """
    if not text:
        return Link()
    rates, *times = text.split(",")
    up, slash, down = rates.partition("/")
    if len(times) > 2:
        raise ConfigError(f"--link must be {FORM}, got {text!r}")
    sent = _rate(up, text)
    received = _rate(down, text) if slash else sent
    return Link(sent, received, *(duration_s(word, f"--link {text}: latency and jitter") for word in times))


def _rate(word: str, text: str) -> float:
    found = re.fullmatch(f"({_NUMBER})(kbit|mbit|gbit)", word.strip())
    if found is None or not float(found[1]) > 0:
        raise ConfigError(f"--link must be {FORM}, got {text!r}")
    return float(found[1]) * _RATES[found[2]]


@dataclass(frozen=True)
class Departure:
    """A message on its way.

    Args:
        gone_s: when its sender has sent the last bit of it.
        head_s: when its first bit reaches the receiver's link.
        tail_s: when its last bit does.
    """

    gone_s: float
    head_s: float
    tail_s: float


class Network:
    """All links of a simulation, between peers that are not in one another's way elsewhere.

    A message leaves when those before it have left the sender's link, and is received when those before it
    have been, at the receiver's rate: it takes latency + bytes / rate where both ends are free and alike.

    Args:
        size: number of peers.
        link: of every one.
        seed: what jitter draws from.
    """

    def __init__(self, size: int, link: Link, seed: int) -> None:
        self.link = link
        self._up_free_s = [0.0] * size
        self._down_free_s = [0.0] * size
        self._draw = np.random.default_rng([seed, 11])

    def send(self, sender: int, n_bytes: int, now_s: float) -> Departure:
        """A message begins to wait for its sender's link."""
        start_s = max(now_s, self._up_free_s[sender])
        gone_s = self._up_free_s[sender] = start_s + n_bytes / self.link.up_bytes_per_s
        late_s = self.link.latency_s
        if self.link.jitter_s:
            late_s += self.link.jitter_s * float(self._draw.random())
        return Departure(gone_s, start_s + late_s, gone_s + late_s)

    def receive(self, receiver: int, n_bytes: int, message: Departure) -> float:
        """When the receiver has all of a message; called in the order in which first bits arrive."""
        begin_s = max(message.head_s, self._down_free_s[receiver])
        done_s = max(message.tail_s, begin_s + n_bytes / self.link.down_bytes_per_s)
        self._down_free_s[receiver] = done_s
        return done_s

    def reset(self, peer: int, now_s: float) -> None:
        """Another machine takes that peer's place: its link is free."""
        self._up_free_s[peer] = self._down_free_s[peer] = now_s
