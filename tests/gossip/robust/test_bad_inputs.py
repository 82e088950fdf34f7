"""What no rule of robust gossip sees: old packets; and distances of models that lie close together."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import compress, gossip, topology
from pydec.comm.frames import HEADER_BYTES, Frame, Kind, pack_into
from pydec.comm.local import LocalCluster
from pydec.errors import FrameError
from pydec.gossip.exchange import Exchange
from pydec.gossip.robust.exchange import tolerant

N = 2000
RULES = [
    "cs-plus:f=1",
    "spectral-filter:f=1",
    "gts:f=1",
    "nna:f=1",
    "ios:f=1",
    "clipped-gossip:f=1",
    "nnm+trimmed-mean:f=1",
]


def mixer_of(rule, x, *, size=5, compressor="none"):
    made = gossip.make(rule)
    graph = topology.make("complete", size=size)
    mixer = made.mixer(x, compress.make(compressor), size - 1)
    mixer.place(0, graph)
    mixer.algorithm = made.name
    return mixer


def message(x, sender, at):
    """A packet of that round."""
    part = compress.make("none")
    payload = np.frombuffer(part.encode(x), np.uint8)
    frame = Frame(
        kind=Kind.GOSSIP, epoch=0, bucket=0, buckets=1, offset=0, length=payload.size, sender=sender,
        round=at, count=len(x), wire_id=part.wire_id,
    )  # fmt: skip
    found = np.zeros(HEADER_BYTES + payload.size, np.uint8)
    pack_into(found, frame)
    found[HEADER_BYTES:] = payload
    return memoryview(found)


@pytest.mark.parametrize("rule", RULES)
def test_a_packet_of_an_older_round_never_reaches_a_rule(rule):
    """Tags repeat after 1024 rounds; a liar sends what it kept from the first one before its own."""
    models = np.random.default_rng(0).standard_normal((5, N)).astype(np.float32)
    kept = np.full(N, 50.0, np.float32)

    def program(transport, *, old):
        if transport.rank == 4:
            for peer in range(4):
                if old:
                    transport.isend(peer, 0, message(kept, 4, 0))
                transport.isend(peer, 0, message(models[4], 4, 1024))
            return models[4], 0
        x = models[transport.rank].copy()
        mixer = mixer_of(rule, x)
        mixer.algorithm = ""
        exchange = tolerant(Exchange, [mixer])(
            transport, topology.make("complete", size=5), [mixer], budget=9
        )
        exchange.run(1024)
        exchange.close()
        return x, exchange.dropped

    with_old = LocalCluster(5).run(lambda transport: program(transport, old=True))
    without = LocalCluster(5).run(lambda transport: program(transport, old=False))
    for (x, dropped), (expected, _) in zip(with_old[:4], without[:4], strict=True):
        np.testing.assert_array_equal(x, expected)
        assert dropped == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("compressor", ["none", "bf16"])
def test_models_that_are_close_are_told_apart_however_long_they_are(rule, compressor):
    """The same round, moved by a common vector 5000 times as long as the distances, gives the same move."""
    draw = np.random.default_rng(1)
    part, plain = compress.make(compressor), compress.make("none")
    around = draw.standard_normal(N).astype(np.float32) * 2**6
    near = draw.standard_normal((5, N)).astype(np.float32) * 2**-7
    near[4] += 2**-6  # a liar, a little aside
    long = np.stack([part.decode(part.encode(row), np.empty(N, np.float32)) for row in around + near])
    short = long - long[0]  # exact: differences of numbers that are close
    moves = []
    for models, code in ((long, part), (short, plain)):
        x = models[0].copy()
        mixer = mixer_of(rule, x, compressor="none" if code is plain else compressor)
        packets = [np.frombuffer(code.encode(row), np.uint8) for row in models]
        mixer.absorb(0, packets[0], packets[1:], [0.2] * 4)
        moves.append(x.astype(np.float64) - models[0])
    spread = max(np.linalg.norm(row) for row in short)
    rounding = 2**-16 * np.sqrt(N) if compressor == "none" else 2**-17 * np.sqrt(N)
    assert np.linalg.norm(moves[0] - moves[1]) <= 2e-3 * spread + rounding
    assert np.linalg.norm(moves[1]) > 0.05 * spread


@pytest.mark.parametrize("rule", ["cs-plus", "spectral-filter", "gts", "trimmed-mean"])
def test_one_malformed_packet_changes_nothing_about_the_others(rule):
    models = np.random.default_rng(2).standard_normal((6, N)).astype(np.float32)
    packets = [np.frombuffer(compress.make("none").encode(row), np.uint8) for row in models]
    broken = packets[5][:100]
    with pytest.raises(FrameError):
        compress.make("none").views([broken], N)
    results = []
    for f, heard in ((2, [*packets[1:5], broken]), (1, packets[1:5])):  # it was one of the two liars
        mixer = mixer_of(f"{rule}:f={f}", models[0].copy(), size=6)
        mixer.absorb(0, packets[0], heard, [1 / 6] * len(heard))
        results.append((mixer.x.copy(), mixer.counts.malformed))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert [count for _, count in results] == [1, 0]


@pytest.mark.parametrize("rule", RULES)
def test_a_packet_of_another_block_is_measured_by_itself(rule):
    """Distances from codes need equal blocks; whoever uses others is heard as before, and so are the rest."""
    models = np.random.default_rng(3).standard_normal((6, N)).astype(np.float32)
    parts = [compress.make("int8")] * 5 + [compress.make("int8:block=512")]
    packets = [np.frombuffer(part.encode(x), np.uint8) for part, x in zip(parts, models, strict=True)]
    assert parts[0].sqdists(packets[0], packets[1:], N) is None
    decoded = [
        part.decode(packet, np.empty(N, np.float32)) for part, packet in zip(parts, packets, strict=True)
    ]
    plain = [np.frombuffer(compress.make("none").encode(x), np.uint8) for x in decoded]
    moved = []
    for compressor, sent in (("int8", packets), ("none", plain)):
        mixer = mixer_of(rule, decoded[0].copy(), size=6, compressor=compressor)
        mixer.absorb(0, sent[0], sent[1:], [1 / 6] * 5)
        moved.append(mixer.x)
        assert mixer.counts.malformed == 0
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-5)


@pytest.mark.parametrize(
    "rule", ["cs-plus", "spectral-filter", "gts", "nna", "ios", "clipped-gossip", "trimmed-mean", "nnm+krum"]
)
@pytest.mark.parametrize("what", ["nan", "huge", "malformed", "missing"])
def test_what_no_honest_rank_sends_leaves_one_liar_less_among_the_rest(rule, what):
    """So no honest neighbour is dropped for it; a packet that is missing leaves f as it is."""
    models = np.random.default_rng(4).standard_normal((8, N)).astype(np.float32)
    models[7] = {"nan": np.nan, "huge": 1e30}.get(what, 0.0)
    packets = [np.frombuffer(compress.make("none").encode(row), np.uint8) for row in models]
    heard = packets[1:7] + {"malformed": [packets[7][:50]], "missing": []}.get(what, [packets[7]])
    moved = []
    for f, sent in ((2, heard), (2 if what == "missing" else 1, packets[1:7])):
        mixer = mixer_of(f"{rule}:f={f}", models[0].copy(), size=8)
        mixer.absorb(0, packets[0], sent, [1 / 8] * len(sent))
        moved.append(mixer.x)
    np.testing.assert_array_equal(*moved)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("how", ["late", "gone"])
def test_with_all_neighbours_late_or_gone_the_own_model_is_kept_and_counted(rule, how):
    x = np.random.default_rng(5).standard_normal(N).astype(np.float32)
    mixer = mixer_of(rule, x.copy(), size=6)
    own = np.frombuffer(compress.make("none").encode(x), np.uint8)
    if how == "late":
        mixer.absorb(0, own, [], [])
    else:
        mixer.alone(0)
    np.testing.assert_array_equal(mixer.x, x)
    assert mixer.counts.kept_own == 1
    alone = mixer_of("cs-plus:f=0", x.copy(), size=1)
    alone.alone(0)
    assert alone.counts.kept_own == 0
