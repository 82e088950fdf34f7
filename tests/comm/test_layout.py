"""Every rank learns which ranks share a node, from messages alone."""

from __future__ import annotations

import pytest

from pydec.comm.layout import node_layout
from pydec.comm.local import LocalCluster
from pydec.errors import PeerTimeout
from pydec.topology import make


@pytest.mark.parametrize(
    ("hosts", "layout"),
    [
        ("a", [0]),
        ("ab", [0, 1]),
        ("bba", [0, 0, 1]),
        ("aabbccd", [0, 0, 1, 1, 2, 2, 3]),
        ("xyxyxyzx", [0, 1, 0, 1, 0, 1, 2, 0]),
        ("abcdefghijklm", list(range(13))),
    ],
)
def test_all_ranks_hold_the_same_layout(hosts, layout):
    cluster = LocalCluster(len(hosts), seed=1, delay_s=(0.0, 0.01))
    assert cluster.run(lambda link: node_layout(link, hosts[link.rank])) == [layout] * len(hosts)


def test_without_a_name_the_machine_is_asked():
    assert LocalCluster(3).run(node_layout) == [[0, 0, 0]] * 3


def test_a_topology_takes_it():
    def program(link):
        return make(
            "hierarchical:between=ring", link.size, nodes=node_layout(link, "ab"[link.rank % 2])
        ).members

    assert LocalCluster(4).run(program) == [((0, 2), (1, 3))] * 4


def test_a_rank_that_does_not_take_part_holds_nobody_for_ever():
    def program(link):
        if link.rank == 2:
            link.sleep(1.0)
        else:
            with pytest.raises(PeerTimeout):
                node_layout(link)

    LocalCluster(3, deadline_s=0.1).run(program)


@pytest.mark.mpi(min_size=2)
@pytest.mark.timeout(60)
def test_ranks_that_mpirun_started_here_share_a_node(mpi_transport):
    assert mpi_transport.host
    assert node_layout(mpi_transport) == [0] * mpi_transport.size
    by_parity = node_layout(mpi_transport, f"host{mpi_transport.rank % 2}")
    assert by_parity == [rank % 2 for rank in range(mpi_transport.size)]
