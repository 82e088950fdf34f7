"""Compression that turns itself off: rounds with and without it are timed, and the faster way is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pydec.compress.auto import Auto
from pydec.errors import ConfigError
from pydec.gossip.base import Mixer
from pydec.gossip.exchange import Exchange
from pydec.topology.base import Topology

_SAMPLES = 3  # timings of every round of a period: the median leaves out one that was disturbed
_LONGEST = 8  # periods beyond this are timed as if their rounds were alike
_SHARE = 128  # one round in so many tries compression
_HOPELESS = 2.0  # compressed rounds that cost this much of plain ones, twice, end a trial
_CLEARLY = 0.9  # what compressed rounds must cost of plain ones to be begun


class Switch:
    """Says of every round whether it compresses, and learns from what rounds cost.

    In the rounds 0, P, 2 P, ... a trial begins: a few rounds plain, as many compressed, on all ranks in the
    same rounds. What a round costs is the time that the program spends in it: encoding, waiting for what
    computation has not hidden, decoding. The first round of each half is not counted: in it, neighbours are
    still late from the other half. Between trials each rank does as its own timings say: it compresses if
    that cost less than 0.9 of plain rounds, and goes on as long as it costs less. So a fast link is plain, a
    link whose transfer is hidden anyway is plain, and where the ranks' links differ each may do otherwise:
    receivers take both. On a clock that stands still during computation decisions repeat exactly.

    Trials take one round in 128 and are given up after three where two timings are twice the plain ones: if
    compressed rounds cost k times as much, that costs (k - 1) / 128 up to k = 2, and less than 0.1 up to 18.

    Args:
        period: rounds of the topology's period, or 0.
    """

    def __init__(self, period: int) -> None:
        self._slots = period if 1 <= period <= _LONGEST else 1
        self._counted = _SAMPLES * (self._slots if self._slots == period else _LONGEST)
        self.trial = 2 * (1 + self._counted)
        """Rounds of a trial."""
        self.every = _SHARE * (1 + self._counted)
        """Rounds from the begin of a trial to that of the next."""
        self.packed = False
        """Whether rounds between trials compress."""
        self._costs = np.full((2, self._counted), np.nan)
        self._given_up = False

    def choose(self, round: int) -> bool:
        """Whether that round compresses."""
        half, _ = self._place(round)
        return self.packed if half is None else half == 1 and not self._given_up

    def note(self, round: int, seconds: float) -> None:
        """What that round cost; the last of a trial decides."""
        half, number = self._place(round)
        if half is None or number < 0:
            return
        self._costs[half, number] = seconds
        if half == 1 and number == 1:
            self._given_up = bool(self._costs[1, :2].min() > _HOPELESS * self._costs[0].max())
        if half == 1 and number == self._counted - 1:
            plain, packed = self._cost(0), self._cost(1)
            if self._given_up:
                self.packed = False
            elif math.isfinite(plain + packed):  # else a part of the trial was before a restart
                self.packed = packed < plain * (1.0 if self.packed else _CLEARLY)
            self._costs.fill(np.nan)
            self._given_up = False

    def _place(self, round: int) -> tuple[int | None, int]:
        """(0 or 1 for the trial's half, number of the timing or -1); None between trials."""
        at = round % self.every
        half, number = divmod(at, 1 + self._counted)
        return (half, number - 1) if half < 2 else (None, -1)

    def _cost(self, half: int) -> float:
        """Sum over the rounds of a period of the median of their timings."""
        timings = self._costs[half].reshape(-1, self._slots)
        return float(np.median(timings, axis=0).sum())

    def numbers(self) -> list[float]:
        """What a checkpoint must hold."""
        return [float(self.packed), float(self._given_up), *self._costs.ravel()]

    def load_numbers(self, numbers: Sequence[float]) -> None:
        """Take back what ``numbers`` gave."""
        self.packed, self._given_up = bool(numbers[0]), bool(numbers[1])
        self._costs[...] = np.reshape(numbers[2:], self._costs.shape)


class SwitchedExchange(Exchange):
    """An exchange that switches the compression of its mixers with compressor ``auto``; others are let be.

    Args:
        transport, topology, mixers, options: as for ``Exchange``.

    Attributes:
        switch: decides.
    """

    def __init__(self, transport: Any, topology: Topology, mixers: Sequence[Mixer], **options: Any) -> None:
        super().__init__(transport, topology, mixers, **options)
        self.switch = Switch(topology.period)
        self._switched = [
            (mixer, (mixer.compressor.switched(False), mixer.compressor.switched(True)))
            for mixer in self.mixers
            if isinstance(mixer.compressor, Auto)
        ]
        self._spent_s = 0.0

    def run(self, round: int) -> None:
        """As ``Exchange.run``."""
        self._choose(round)
        started = self.transport.now()
        super().run(round)
        self.switch.note(round, self.transport.now() - started)

    def begin(self, round: int) -> None:
        """As ``Exchange.begin``."""
        self._choose(round)
        started = self.transport.now()
        super().begin(round)
        self._spent_s = self.transport.now() - started

    def finish(self, *, mix: bool = True) -> None:
        """As ``Exchange.finish``."""
        started = self.transport.now()
        super().finish(mix=mix)
        if mix:
            self.switch.note(self.round, self._spent_s + self.transport.now() - started)

    def _choose(self, round: int) -> None:
        packed = self.switch.choose(round)
        for mixer, ways in self._switched:
            mixer.compressor = ways[packed]


def exchange_of(mixers: Sequence[Mixer]) -> type[Exchange]:
    """The kind of exchange that the mixers need."""
    return SwitchedExchange if any(isinstance(mixer.compressor, Auto) for mixer in mixers) else Exchange


def refuse_auto(what: str, compressor: object) -> None:
    """Raise ConfigError for ``auto`` where nothing would switch it; ``what`` names the place."""
    if isinstance(compressor, Auto):
        raise ConfigError(
            f"{what} has no rounds whose time with and without compression could be compared, so "
            f"compressor='auto' would never compress; use compressor='none' or '{compressor.lossy}'"
        )
