"""A peer alone, and peers in a local cluster."""

from __future__ import annotations

import signal

import pytest

import pydec
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.errors import ConfigError, MismatchError, Stopped


def test_alone_it_is_a_cluster_of_one() -> None:
    with pydec.init(seed=3) as peer:
        assert (peer.rank, peer.size) == (0, 1)
        assert (peer.view.epoch, peer.view.members, peer.view.seed) == (0, (0,), 3)
        peer.check()
    peer.close()  # idempotent


def test_alone_an_exception_passes_through() -> None:
    with pytest.raises(KeyError), pydec.init():
        raise KeyError("mine")


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pydec.init():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    with pydec.init(signals=False):
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_stops_at_the_next_check() -> None:
    with pydec.init() as peer:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped) as stopped:
            peer.check()
    assert (stopped.value.signum, stopped.value.origin) == (signal.SIGTERM, 0)


def test_a_deadline_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="deadline_s must be positive, got 0"):
        pydec.init(deadline_s=0)


def test_different_seeds_are_named() -> None:
    def program(transport: Transport) -> None:
        pydec.init(transport=transport, seed=transport.rank // 2)

    with pytest.raises(MismatchError, match="seed"):
        LocalCluster(3).run(program)


def test_in_a_local_cluster_an_exception_ends_its_rank_only() -> None:
    def program(transport: Transport) -> None:
        with pydec.init(transport=transport) as peer:
            if peer.rank == 1:
                raise KeyError("mine")

    with pytest.raises(KeyError):
        LocalCluster(2).run(program)
