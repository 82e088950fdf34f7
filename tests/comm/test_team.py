"""A team of some ranks: a cluster of its own numbers, to which the others are nobody."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.comm.agree import agree
from pydec.comm.collect import ring_mean
from pydec.comm.faults import Death
from pydec.comm.living import living, mean_of_living
from pydec.comm.local import LocalCluster
from pydec.comm.stop import StopGuard
from pydec.comm.team import Team, place_of, rank_of
from pydec.comm.transport import Stream
from pydec.errors import ConfigError, FrameError, PeerLost, PeerTimeout, Stopped
from pydec.peer import Peer


@pytest.mark.parametrize("members", [(0, 1, 2), (0, 2, 4), (1, 3)])
def test_a_team_does_together_what_a_cluster_does(members):
    def program(transport):
        if transport.rank not in members:
            return None
        team = Team(transport, members)
        agree(team, {"size": str(team.size)})
        x = np.full(5, float(team.rank))
        ring_mean(team, x)
        mean_of_living(team, x)
        return team.rank, x[0], team.stream(Stream.COLLECT).bytes_sent > 0

    cluster = LocalCluster(5, delay_s=0.001, trace=True)
    results = cluster.run(program)
    mean = (len(members) - 1) / 2
    assert [results[rank] for rank in members] == [(place, mean, True) for place in range(len(members))]
    assert {event.receiver for event in cluster.trace} == {*members}


def test_numbers_are_those_of_the_team_in_errors_too():
    def program(transport):
        if transport.rank == 1:
            transport.post(2, b"from outside")
            transport.post(0, b"from outside")
            transport.isend(3, 5, memoryview(b"to a member"))
            return
        team = Team(transport, (0, 2, 3))
        assert (place_of(team, 3), place_of(team, 1), rank_of(team, 2)) == (2, None, 3)
        assert (place_of(transport, 3), rank_of(transport, 3)) == (3, 3)
        if team.rank == 2:
            team.post(1, b"from a member")
            team.isend(1, 7, memoryview(b"long"))
            return
        if team.rank == 1:
            note = None
            while note is None:
                note = team.poll()
            assert note == (2, b"from a member")
            assert team.dropped == 1
            with pytest.raises(FrameError):
                team.irecv(2, 7, memoryview(bytearray(1))).wait()
            with pytest.raises(PeerTimeout, match="rank 2 ") as caught:
                team.irecv(2, 5, memoryview(bytearray(16))).wait(1.0)  # what rank 1 has sent is not for it
            assert caught.value.peer == 2
            with pytest.raises(ConfigError, match="this cluster has ranks 0 to 2"):
                team.isend(3, 0, memoryview(b""))

    LocalCluster(4, delay_s=0.001).run(program)


def test_the_dead_are_named_by_their_numbers_and_others_are_nobody():
    def program(transport):
        if transport.rank in (0, 3):
            transport.sleep(5.0)
            return None
        team = Team(transport, (1, 2, 3))
        with pytest.raises(PeerLost, match="rank 2 ") as caught:
            team.irecv(2, 0, memoryview(bytearray(1))).wait()
        transport.sleep(5.0)
        return caught.value.peer, team.lost(), living(team).members

    deaths = {0: Death(1.0, (0.0, 0.0)), 3: Death(1.0, (0.0, 0.0))}
    results = LocalCluster(4, deaths=deaths).run(program)
    assert results[1] == results[2] == (2, frozenset({2}), (0, 1, 2))


def test_a_peer_narrows_to_a_team_and_a_signal_stops_its_members_only():
    def program(transport):
        peer = Peer(transport, signals=False)
        if transport.rank == 1:
            peer._guard.request(15)  # of no concern to the team
            with pytest.raises(Stopped):
                peer.check()
            transport.sleep(3.0)
            return "outside"
        peer.narrow((0, 2, 3))
        assert (peer.size, peer.view.members) == (3, (0, 1, 2))
        transport.sleep(1.0)
        peer.check()
        if peer.rank == 2:
            peer._guard.request(15)
        transport.sleep(1.0 if peer.rank == 2 else 1.5)
        with pytest.raises(Stopped, match="by rank 2"):
            peer.check()
        return peer.rank

    assert LocalCluster(4, delay_s=0.001).run(program) == [0, "outside", 1, 2]


def test_a_signal_that_came_before_is_not_lost():
    def program(transport):
        peer = Peer(transport, signals=False)
        guard = peer._guard
        assert isinstance(guard, StopGuard)
        guard._received = 15
        with pytest.raises(Stopped):
            peer.narrow((0,))
        anew = guard.anew(Team(transport, (0,)), None)
        with anew, pytest.raises(Stopped):
            anew.check()

    LocalCluster(1).run(program)
