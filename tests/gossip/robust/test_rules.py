"""Robust gossip against its formulas in NumPy, over real exchanges in a local cluster, with liars."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pydec import aggregate, compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.exchange import Exchange
from pydec.gossip.robust import Heard, RobustMixer, robust_rules
from pydec.gossip.robust.exchange import TolerantExchange
from pydec.gossip.robust.sets import RPEL, hypergeometric
from pydec.optim.exchanges import tolerant

N = 3000
RULES = [name for name in robust_rules if name not in ("rpel", "ubar")]
SETS = ["median:f=2", "nnm+trimmed-mean:f=2", "geometric-median:f=2", "krum:f=2"]


def spec(name, f):
    return name if ":" in name else f"{name}:f={f}"


def models(size, *, spread=0.1, n=N):
    draw = np.random.default_rng(size)
    common = draw.standard_normal(n)
    return (common + spread * draw.standard_normal((size, n))).astype(np.float32)


class Liar(AverageMixer):
    """Sends a vector, or bytes, in place of its own model."""

    lie: np.ndarray | bytes = b""

    def encode(self, bucket, out, key=0):
        if isinstance(self.lie, bytes):
            out[: len(self.lie)] = np.frombuffer(self.lie, np.uint8)
            return len(self.lie)
        return self.compressor.encode_into(self.lie, out)

    def absorb(self, bucket, own, packets, weights):
        """It does not care what others say."""


def one_round(rule, x, *, graph="complete", compressor="none", lies=None, rounds=1):
    """Every rank's vector after some rounds, and its counts; the ranks in ``lies`` send those."""
    lies = lies or {}

    def program(transport):
        schedule = topology.make(graph, size=transport.size, seed=1)
        made, part = gossip.make(rule), compress.make(compressor)
        made.check(schedule, part)
        mine = x[transport.rank].copy()
        mixer = made.mixer(mine, part, schedule.degree)
        if transport.rank in lies:
            mixer = Liar(mine, part, schedule.degree)
            mixer.buckets = [(0, len(mine))]
            mixer.lie = lies[transport.rank]
        mixer.algorithm = made.name
        exchange = TolerantExchange(transport, schedule, [mixer], budget=made.budget)
        for t in range(rounds):
            exchange.run(t)
        exchange.flush()
        return mine, getattr(mixer, "counts", None)

    found = LocalCluster(len(x)).run(program)
    return np.stack([mine for mine, _ in found]), [counts for _, counts in found]


def distances(x, i):
    return np.linalg.norm(x.astype(np.float64) - x[i], axis=1)


# Formulas, of rank i on a matrix w; x in float64.


def clipped_gossip(x, i, w, f):
    heard = [j for j in range(len(x)) if j != i and w[i, j]]
    d = distances(x, i)
    suspect = np.sort(w[i, heard])[::-1][:f].sum()
    total, squares = 0.0, 0.0
    for j in sorted(heard, key=lambda j: d[j]):
        if total + w[i, j] > w[i, heard].sum() - suspect + 1e-9:
            break
        total, squares = total + w[i, j], squares + w[i, j] * d[j] ** 2
    radius = math.sqrt(squares / suspect)
    return x[i] + sum(w[i, j] * min(1, radius / d[j]) * (x[j] - x[i]) for j in heard)


def cs_plus(x, i, w, f):
    heard = [j for j in range(len(x)) if j != i and w[i, j]]
    d = distances(x, i)
    radius = sorted((d[j] for j in heard), reverse=True)[2 * f]  # equal weights
    return x[i] + sum(w[i, j] * min(1, radius / d[j]) * (x[j] - x[i]) for j in heard)


def nna(x, i, w, f):
    heard = [j for j in range(len(x)) if j == i or w[i, j]]
    d = distances(x, i)
    return x[sorted(heard, key=lambda j: d[j])[: len(heard) - f]].mean(axis=0)


def gts(x, i, w, f):
    heard = [j for j in range(len(x)) if j != i and w[i, j]]
    d = distances(x, i)
    kept = sorted(heard, key=lambda j: d[j])[: len(heard) - f]
    return x[i] + sum(w[i, j] * (x[j] - x[i]) for j in kept)


def ios(x, i, w, f):
    kept = [j for j in range(len(x)) if j == i or w[i, j]]
    for _ in range(f):
        mean = w[i, kept] @ x[kept] / w[i, kept].sum()
        kept.remove(max((j for j in kept if j != i), key=lambda j: np.linalg.norm(x[j] - mean)))
    return w[i, kept] @ x[kept] / w[i, kept].sum()


def balance(x, i, w, f):
    d = distances(x, i)
    accepted = [j for j in range(len(x)) if j != i and w[i, j] and d[j] <= 0.3 * np.linalg.norm(x[i])]
    return x[i] if not accepted else 0.5 * x[i] + 0.5 * x[accepted].mean(axis=0)


def bridge(x, i, w, f):
    kept = [j for j in range(len(x)) if j == i or w[i, j]]
    return np.sort(x[kept], axis=0)[f : len(kept) - f].mean(axis=0)


def spectral_filter(x, i, w, f):
    heard = [i, *(j for j in range(len(x)) if j != i and w[i, j])]
    near, start = x[heard] - x[i], w[i, heard]
    values, vectors = np.linalg.eigh(near @ near.T)
    root = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
    answers = []
    for z in np.random.default_rng(0).standard_normal((len(heard), 64)).T:
        c, best, lowest = start.copy(), None, np.inf
        while best is None or c.sum() > 1 - 2 * np.sort(start[1:])[::-1][:f].sum() + 1e-9:
            mu, y = c @ near / c.sum(), root @ z
            v = (c * (y - c @ y / c.sum())) @ (near - mu)
            tau = ((near - mu) @ v) ** 2 / (v @ v)
            if c @ tau / c.sum() < lowest:
                best, lowest = mu, c @ tau / c.sum()
            c[1:] *= 1 - np.minimum(tau[1:] / tau[1:][c[1:] > 0].max(), 1)
        answers.append(best)
    return x[i] + np.mean(answers, axis=0)


FORMULAS = {
    "clipped-gossip": clipped_gossip, "cs-plus": cs_plus, "nna": nna, "gts": gts, "ios": ios,
    "balance": balance, "bridge": bridge, "spectral-filter": spectral_filter,
}  # fmt: skip


def test_every_rule_has_a_formula():
    assert set(FORMULAS) == set(RULES)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("graph", "f"), [("complete", 2), ("random-regular:degree=6", 2), ("random-regular:degree=4", 1)]
)
def test_rules_are_their_formulas(name, graph, f):
    x = models(9)
    x[3] += 1  # farther than the rest, but no liar
    got, _ = one_round(spec(name, f), x, graph=graph)
    w = topology.make(graph, size=9, seed=1).weights(0)
    wide = x.astype(np.float64)
    for i in range(9):
        np.testing.assert_allclose(got[i], FORMULAS[name](wide, i, w, f), atol=2e-5)


@pytest.mark.parametrize("name", SETS)
def test_aggregators_are_gossip_of_the_neighbourhood(name):
    x = models(8)
    got, _ = one_round(name, x, graph="random-regular:degree=6")
    w = topology.make("random-regular:degree=6", size=8, seed=1).weights(0)
    for i in range(8):
        heard = [x[j] for j in range(8) if j != i and w[i, j]]
        np.testing.assert_allclose(got[i], aggregate.make(name)([x[i], *heard], own=x[i]), atol=1e-6)


@pytest.mark.parametrize("name", ["clipped-gossip", "cs-plus", "gts", "ios", "spectral-filter"])
@pytest.mark.parametrize("graph", ["ring", "complete", "one-peer-exponential"])
def test_without_liars_rules_with_the_graphs_weights_are_plain_gossip(name, graph):
    x = models(6)
    got, _ = one_round(spec(name, 0), x, graph=graph)
    np.testing.assert_allclose(got, topology.make(graph, size=6).weights(0) @ x.astype(np.float64), atol=1e-5)


@pytest.mark.parametrize("name", [*RULES, *SETS])
@pytest.mark.parametrize("compressor", ["none", "int8", "bf16"])
def test_packets_are_judged_as_they_arrive(name, compressor):
    """Compressed rounds do what uncompressed ones of the decoded models do."""
    x = models(8)
    part = compress.make(compressor)
    decoded = np.stack([part.decode(part.encode(row), np.empty_like(row)) for row in x])
    got, _ = one_round(spec(name, 2), x, compressor=compressor)
    plain, _ = one_round(spec(name, 2), decoded)
    np.testing.assert_allclose(got - x, plain - decoded, atol=1e-5)


@pytest.mark.parametrize("name", [*RULES, *SETS])
@pytest.mark.parametrize(
    ("compressor", "what"),
    [("none", "nan"), *itertools.product(["none", "int8"], ["far", "huge", "garbage", "empty"])],
)
def test_liars_move_nobody_beyond_the_honest_spread(name, compressor, what):
    x = models(9)
    far = {"far": 50.0, "huge": 1e30, "nan": np.nan}
    lie = np.full(N, far[what], np.float32) if what in far else {"garbage": b"\xff" * 90, "empty": b""}[what]
    got, counts = one_round(spec(name, 2), x, compressor=compressor, lies={4: lie, 7: lie})
    honest = [i for i in range(9) if i not in (4, 7)]
    spread = max(np.linalg.norm(x[i] - x[honest].mean(axis=0)) for i in honest)
    for i in honest:
        assert np.linalg.norm(got[i] - x[honest].mean(axis=0)) <= 1.6 * spread
        seen = counts[i]
        expected = {"far": 0, "huge": seen.over_norm, "nan": seen.nonfinite}.get(what, seen.malformed)
        assert expected == (0 if what == "far" else 2)


@pytest.mark.parametrize("name", ["cs-plus", "nna", "median:f=2"])
def test_a_neighbour_of_another_compressor_is_left_out_and_ends_nothing(name):
    x = models(7)

    def program(transport):
        schedule = topology.make("complete", size=7)
        made, part = gossip.make(spec(name, 2)), compress.make("int8" if transport.rank == 3 else "none")
        mixer = made.mixer(x[transport.rank].copy(), part, 6)
        exchange = tolerant(Exchange, [mixer])(transport, schedule, [mixer], budget=9)
        exchange.run(0)
        exchange.flush()
        return mixer.counts.malformed, exchange.dropped

    found = LocalCluster(7).run(program)
    assert [counts for counts, _ in found] == [1, 1, 1, 6, 1, 1, 1]
    assert found[0] == (1, 1)


def test_plain_mixers_keep_the_plain_exchange():
    mixer = AverageMixer(np.zeros(4, np.float32), compress.make("none"), 1)
    assert tolerant(Exchange, [mixer]) is Exchange


@pytest.mark.parametrize("name", ["cs-plus", "nna", "ios", "krum:f=1"])
def test_where_too_few_are_left_the_own_model_is_kept(name):
    x = models(6)
    nan = np.full(N, np.nan, np.float32)
    got, counts = one_round(spec(name, 1), x, lies=dict.fromkeys(range(1, 6), nan))
    np.testing.assert_array_equal(got[0], x[0])
    assert (counts[0].nonfinite, counts[0].kept_own) == (5, 1)


def heard(distances, weights=None, f=1, **more):
    d = np.array(distances, float)
    w = np.full(len(d), 1 / (1 + len(d))) if weights is None else np.array(weights)
    return Heard(
        d,
        w,
        f,
        0,
        norm=lambda: 1.0,
        gram=lambda: more.get("gram", np.diag(d**2)),
        loss=more.get("loss", lambda k: 0.0),
    )


def test_cs_plus_counts_weights_not_neighbours():
    rule = gossip.make("cs-plus:f=1")
    np.testing.assert_allclose(rule.coefficients(heard([4, 3, 2, 1])) * 5, [0.5, 2 / 3, 1, 1])
    # f = 1 may weigh 0.4: only neighbours of 0.8 together, here the first three, may be clipped
    got = rule.coefficients(heard([4, 3, 2, 1], [0.4, 0.2, 0.2, 0.1]))
    np.testing.assert_allclose(got, [0.4 / 4, 0.2 / 3, 0.2 / 2, 0.1])
    assert not rule.coefficients(heard([2, 1])).any()  # both may be clipped, to nothing


def test_clipped_gossip_takes_a_fixed_radius():
    got = gossip.make("clipped-gossip:radius=2").coefficients(heard([4, 1, 0]))
    np.testing.assert_allclose(got * 4, [0.5, 1, 1])


def test_the_filter_sees_honest_models_behind_a_lie_of_any_size():
    rule = gossip.make("spectral-filter:f=1")
    draw = np.random.default_rng(1)
    for size in (1e2, 1e8, 1e17):
        x = draw.standard_normal((7, 50))
        x[6] *= size
        scene = heard(np.linalg.norm(x, axis=1), gram=x @ x.T)
        got = rule.coefficients(scene)
        assert got[6] < 1e-3
        assert 0.6 < got[:6].sum() < 0.9
        assert got[:6].min() > 0.05


def test_the_filter_of_equal_models_keeps_them():
    got = gossip.make("spectral-filter:f=1").coefficients(heard([0.0] * 5))
    np.testing.assert_allclose(got, 1 / 6)


def test_balance_shrinks_its_radius():
    rule = gossip.make("balance:gamma=2,kappa=1,horizon=10,alpha=0.4")
    scene = heard([1.9, 1.0, 0.5])
    assert np.count_nonzero(rule.coefficients(scene)) == 3
    scene.round = 10  # 2 / e = 0.74
    np.testing.assert_allclose(rule.coefficients(scene), [0, 0, 0.6])


def test_ubar_takes_the_near_ones_that_are_no_worse_or_else_the_best():
    rule = gossip.make("ubar:rho=0.75,f=1,alpha=0.5")
    losses = {-1: 1.0, 0: 0.9, 1: 2.0, 2: 1.0, 3: 0.0}
    scene = heard([1, 2, 3, 9], loss=lambda k: losses[k])
    np.testing.assert_allclose(rule.coefficients(scene), [0.25, 0, 0.25, 0])
    losses[-1] = 0.5
    np.testing.assert_allclose(rule.coefficients(scene), [0.5, 0, 0, 0])
    losses[0] = math.nan
    np.testing.assert_allclose(rule.coefficients(scene), [0, 0, 0.5, 0])


def test_ubar_says_how_to_tell_it_the_loss():
    mixer = gossip.make("ubar").mixer(np.zeros(4, np.float32), compress.make("none"), 2)
    assert isinstance(mixer, RobustMixer)
    packet = np.frombuffer(compress.make("none").encode(np.ones(4, np.float32)), np.uint8)
    with pytest.raises(ConfigError, match=r"optimizer.judge\(loss\)"):
        mixer.absorb(0, packet, [packet] * 5, [0.1] * 5)


def test_rpel_bounds_the_liars_of_every_draw():
    rule = gossip.make("rpel:f=3,horizon=100,delta=0.01")
    assert isinstance(rule, RPEL)
    n, s = 30, 12
    b = rule.effective(n, s)
    tail = [sum(hypergeometric(n - 1, 3, s, k) for k in range(least, 4)) for least in range(5)]
    allowed = 0.01 / (100 * 27)
    assert b == next(k for k in range(4) if tail[k + 1] <= allowed)
    assert sum(hypergeometric(29, 3, 12, k) for k in range(4)) == pytest.approx(1)
    many = RPEL(f=10, horizon=1, delta=0.1)
    assert many.effective(1001, 20) < 10
    assert RPEL(f=0).effective(10, 4) == 0


def test_rpel_pulls_from_others_in_every_round_and_comes_together():
    x = models(16, spread=1.0)
    lie = np.full(N, 100, np.float32)
    got, _ = one_round("rpel:f=1,horizon=20", x, graph="epidemic:s=6", lies={5: lie}, rounds=15)
    honest = np.delete(got, 5, axis=0)
    before = np.delete(x, 5, axis=0)
    assert np.linalg.norm(honest - honest.mean(axis=0)) < 0.05 * np.linalg.norm(before - before.mean(axis=0))
    assert np.linalg.norm(honest.mean(axis=0) - before.mean(axis=0)) < 0.5 * np.sqrt(N)


@pytest.mark.parametrize(
    ("rule", "graph", "size", "message"),
    [
        ("cs-plus:f=1", "ring", 8, r"cs-plus with f=1 needs 2 f \+ 1 = 3 .* rank 0 hears 2 on ring of 8"),
        ("nna:f=2", "random-regular:degree=3", 8, r"needs 2 f = 4 neighbours .* hears 3"),
        ("ios:f=4", "complete", 8, r"= 8 neighbours .* hears 7"),
        ("clipped-gossip:f=2", "ring", 8, r"f \+ 1 = 3 neighbours"),
        ("ubar:f=4,rho=0.5", "complete", 8, r"f \+ ceil\(rho m\) = 8 neighbours"),
        ("bridge:f=2", "random-regular:degree=3", 8, r"with f=2 needs .* = 5 vectors, got 4; .* hears 3"),
        ("krum:f=2", "random-regular:degree=5", 8, r"krum with f=2 needs .* = 7 vectors, got 6"),
        ("bulyan:f=2", "complete", 10, r"= 11 vectors, got 10; the largest f for 10 is 1"),
        ("rpel:f=1", "ring", 8, "those of ring repeat; use topology epidemic"),
        ("rpel:f=5", "epidemic:s=4", 12, r"needs .* vectors, got 5"),
        ("cs-plus:f=1", "star", 8, "neighbours of every rank"),
    ],
)  # fmt: skip
def test_a_graph_or_f_that_breaks_the_condition_is_refused_with_the_numbers(rule, graph, size, message):
    with pytest.raises(ConfigError, match=message):
        gossip.make(rule).check(topology.make(graph, size=size), compress.make("none"))


@pytest.mark.parametrize("name", [*robust_rules, "trimmed-mean"])
def test_sparse_compressors_are_refused(name):
    graph = "epidemic:s=6" if name == "rpel" else "complete"
    with pytest.raises(ConfigError, match="keeps too little"):
        gossip.make(spec(name, 1)).check(topology.make(graph, size=9), compress.make("topk:fraction=0.01"))
