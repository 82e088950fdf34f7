"""An exchange that no neighbour can end: what a robust run does with packets that are none."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.compress.base import Bytes
from pydec.errors import ProtocolError
from pydec.gossip.base import Mixer
from pydec.gossip.exchange import Exchange
from pydec.gossip.gpu import GpuExchange
from pydec.gossip.robust.base import RobustMixer
from pydec.gossip.switch import SwitchedExchange


class _Tolerant(Exchange):
    """A neighbour that sends what it must not is left out of the round and counted; nothing is raised."""

    def _take(self, number: int, place: int, peer: int) -> Bytes | None:
        try:
            return super()._take(number, place, peer)
        except ProtocolError:
            self._forget(place, peer)
            for mixer in self.mixers:
                if isinstance(mixer, RobustMixer):
                    mixer.counts.malformed += 1
            return None


class TolerantExchange(_Tolerant, Exchange):
    """``Exchange`` for robust mixers."""


class TolerantGpuExchange(_Tolerant, GpuExchange):
    """``GpuExchange`` for robust mixers, which look at bodies themselves."""


class TolerantSwitchedExchange(_Tolerant, SwitchedExchange):
    """``SwitchedExchange`` for robust mixers."""


def tolerant(kind: type[Exchange], mixers: Sequence[Mixer]) -> type[Exchange]:
    """That kind of exchange, or its tolerant form if a mixer is forgiving."""
    if not any(mixer.forgiving for mixer in mixers):
        return kind
    if issubclass(kind, GpuExchange):
        return TolerantGpuExchange
    return TolerantSwitchedExchange if issubclass(kind, SwitchedExchange) else TolerantExchange
