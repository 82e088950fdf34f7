"""RelaySGD's packets: counts, what is late, what is malformed; and packets of single edges in general."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.errors import FrameError
from pydec.gossip.exchange import Exchange, Late
from pydec.gossip.relaysgd import RelayMixer

N = 900


def start(size: int, n: int = N) -> NDArray[np.float32]:
    return np.random.default_rng(size).standard_normal((size, n)).astype(np.float32)


def relaying(
    x: NDArray[np.float32], graph: str, rounds: int, late: Late = "raise", overlap: bool = True
) -> object:
    def program(transport: Transport) -> tuple[list[NDArray[np.float32]], list[dict[int, list[int]]]]:
        schedule, mine = topology.make(graph, size=transport.size), x[transport.rank].copy()
        mixer = gossip.make("relaysgd").mixer(mine, compress.make("none"), schedule.degree)
        assert isinstance(mixer, RelayMixer)
        exchange = Exchange(transport, schedule, [mixer], late=late, overlap=overlap)
        path, counts = [], []
        for t in range(rounds):
            if overlap:
                exchange.begin(t)
                exchange.finish()
            else:
                exchange.run(t)
            path.append(mine.copy())
            counts.append({peer: list(count) for peer, count in mixer.counts.items()})
            mine[:] = x[transport.rank]  # every round sends the same models
        exchange.close()
        return path, counts

    return program


@pytest.mark.parametrize("graph", ["chain", "star", "binary-tree", "spanning-tree:of=torus"])
@pytest.mark.parametrize("overlap", [False, True])
def test_constant_models_have_their_exact_mean_after_as_many_rounds_as_the_tree_is_deep(
    graph: str, overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydec.gossip.base._MIN_BUCKET_ELEMENTS", 100)
    size = 9
    x = start(size)
    results = LocalCluster(size).run(relaying(x, graph, size, overlap=overlap))
    for rank, (path, counts) in enumerate(results):
        np.testing.assert_allclose(path[-1], x.mean(0), atol=1e-6)
        assert len(next(iter(counts[-1].values()))) >= 2  # buckets
        for bucket in range(2):
            assert 1 + sum(count[bucket] for count in counts[-1].values()) == size
        # The first round knows the neighbours only.
        near = [rank, *topology.make(graph, size=size).neighbors(rank, 0)]
        np.testing.assert_allclose(path[0], x[near].mean(0), atol=1e-6)


def test_what_is_late_is_left_out_with_its_count() -> None:
    size, x = 6, start(6, 50)
    lossy = LocalCluster(size, seed=3, loss=0.1, deadline_s=1.0)
    results = lossy.run(relaying(x, "binary-tree", 25, late="drop"))
    totals = set()
    for rank, (path, counts) in enumerate(results):
        for t in range(5, 25):
            totals.add(1 + sum(count[0] for count in counts[t].values()))
            # A mean of some of the models, the own one among them: their shares add up to 1.
            shares = np.linalg.lstsq(x.T.astype(np.float64), path[t].astype(np.float64), rcond=None)[0]
            np.testing.assert_allclose(shares.sum(), 1.0, atol=1e-5)
            np.testing.assert_allclose(shares[shares > 1e-4], shares[rank], atol=1e-5)
    assert max(totals) == size
    assert min(totals) < size


def test_malformed_packets_change_nothing() -> None:
    x = start(1, 20)[0]
    mixer = RelayMixer(x, compress.make("none"), 2)
    mixer.meet(1, [0, 2])
    out = np.zeros(mixer.capacity(0), np.uint8)
    mixer.encode_for(2, 0, out)
    assert mixer.decodes(0, out)
    before = x.copy()
    for place, byte in ((0, 0), (9, 1), (4, 1), (16, 77)):
        bad = out.copy()
        bad[place] = byte
        with pytest.raises(FrameError):
            mixer.absorb_from([0, 2], 0, [out, bad], [0.3, 0.3])
        assert not mixer.decodes(0, bad)
    with pytest.raises(FrameError):
        mixer.absorb_from([0, 2], 0, [out, out[:8]], [0.3, 0.3])
    np.testing.assert_array_equal(x, before)
    assert mixer.counts == {0: [0], 2: [0]}


def test_an_edge_mixer_has_no_packet_for_everybody() -> None:
    mixer = RelayMixer(start(1, 20)[0], compress.make("none"), 2)
    with pytest.raises(TypeError, match="encode_for"):
        mixer.encode(0, np.zeros(mixer.capacity(0), np.uint8))
    with pytest.raises(TypeError, match="absorb_from"):
        mixer.absorb(0, np.zeros(0, np.uint8), [], [])
