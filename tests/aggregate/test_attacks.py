"""Attacks against their formulas, and that they do harm."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from pydec import aggregate
from pydec.aggregate import attacks
from pydec.aggregate.attacks import Scene
from pydec.aggregate.attacks.graph import strongest
from pydec.aggregate.attacks.hidden import largest_z
from pydec.errors import ConfigError

D = 40


def scene(**more):
    draw = np.random.default_rng(1)
    honest = draw.standard_normal((6, D)).astype(np.float32) + 2
    given = {
        "own": draw.standard_normal(D).astype(np.float32),
        "honest": honest,
        "victim": honest[0],
        "weights": np.full(6, 1 / 8),
        "liar_weight": 2 / 8,
        "n": 8,
        "f": 2,
        "fiedler": np.linspace(-1, 1, 6),
        "fiedler_victim": -1.0,
    }
    return Scene(**{**given, **more})


@pytest.mark.parametrize("name", list(attacks.attacks))
def test_every_attack_gives_a_new_vector_and_repeats(name):
    first, second = (attacks.make(name).craft(scene()) for _ in range(2))
    assert first.dtype == np.float32
    assert first.shape == (D,)
    np.testing.assert_array_equal(first, second)
    where = scene()
    made = attacks.make(name).craft(where)
    assert not any(np.shares_memory(made, part) for part in (where.own, where.honest))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("sign-flip:scale=2", lambda s: -2 * s.honest.mean(axis=0)),
        ("bit-flip", lambda s: -s.own),
        ("label-flip", lambda s: s.own),
        ("alie:z=3", lambda s: s.honest.mean(axis=0) - 3 * s.honest.std(axis=0)),
        ("ipm:eps=0.5", lambda s: -0.5 * s.honest.mean(axis=0)),
        ("huge:value=1e20", lambda s: np.full(D, 1e20)),
        ("dissensus:eps=2", lambda s: s.victim - 2 * (s.weights @ (s.honest - s.victim)) / s.liar_weight),
        ("spectral:scale=3", lambda s: s.victim + 3 * s.fiedler_victim * (s.fiedler @ s.honest)),
        ("sparse-alie:scale=2", lambda s: s.victim - 2 * s.honest.std(axis=0)),
        ("sparse-alie:scale=2,direction=ipm", lambda s: s.victim - 2 * s.honest.mean(axis=0)),
    ],
)
def test_attacks_are_their_formulas(spec, expected):
    where = scene()
    np.testing.assert_allclose(attacks.make(spec).craft(where), expected(where), rtol=1e-5, atol=1e-5)


def test_nan_is_nan_and_noise_has_its_deviation():
    assert np.isnan(attacks.make("nan").craft(scene())).all()
    noise = attacks.make("gaussian:deviation=5").craft(scene(own=np.zeros(20_000, np.float32)))
    assert noise.std() == pytest.approx(5, rel=0.05)


def test_the_papers_z_for_50_workers_24_of_them_liars():
    # Baruch et al.: n = 50, m = 24 gives s = 2 supporters and z = Phi^-1(24 / 26)
    assert largest_z(50, 24) == pytest.approx(NormalDist().inv_cdf(24 / 26))
    assert largest_z(5, 1) == 0.0
    where = scene(n=50, f=24)
    z = np.float32(largest_z(50, 24))
    expected = where.honest.mean(axis=0) - z * where.honest.std(axis=0)
    np.testing.assert_allclose(attacks.make("alie:z=0").craft(where), expected, rtol=1e-5)


def test_stale_vectors_are_as_old_as_they_say():
    memory, sent = {}, []
    for t in range(12):
        where = scene(own=np.full(D, t, np.float32), round=t, memory=memory)
        sent.append(float(attacks.make("stale:delay=3").craft(where)[0]))
    assert sent == [0, 0, 0, 0, 0, 0, 3, 3, 3, 6, 6, 6]


def test_mimic_copies_one_honest_vector_along_the_largest_variance_and_stays():
    draw = np.random.default_rng(0)
    honest = draw.standard_normal((7, D)).astype(np.float32)
    honest[4, 3] += 40  # far along one axis
    memory = {}
    for t in range(30):
        got = attacks.make("mimic:warmup=10").craft(scene(honest=honest, memory=memory, round=t, draw=draw))
        np.testing.assert_array_equal(got, honest[4])
    moved = honest.copy()
    moved[4, 3] -= 40
    got = attacks.make("mimic:warmup=10").craft(scene(honest=moved, memory=memory, draw=draw))
    np.testing.assert_array_equal(got, moved[4])


def test_equivocation_tells_two_neighbours_different_things():
    one, other = (attacks.make("equivocation").craft(scene(place=place)) for place in (0, 1))
    assert np.abs(one - other).max() > 1
    np.testing.assert_allclose((one + other) / 2, scene().mean(), atol=1e-5)


def test_dissensus_moves_a_plain_average_away_from_its_neighbours():
    where = scene()
    lie = attacks.make("dissensus:eps=1.5").craft(where)
    plain = where.weights @ where.honest + where.liar_weight * lie
    towards = where.weights @ (where.honest - where.victim)
    np.testing.assert_allclose(plain - where.victim, -0.5 * towards, atol=1e-4)
    assert attacks.make("dissensus").craft(scene(weights=None)).shape == (D,)


@pytest.mark.parametrize("name", ["sparse-alie", "spectral"])
def test_the_line_search_finds_the_largest_deviation_not_the_largest_result(name):
    """The published search compares norms of the answers: one of norm 0, far from the target, is least."""
    where = scene()
    target = where.weights @ where.honest + 0.25 * where.victim
    rule = aggregate.make("trimmed-mean:f=2")

    def answer(lie):
        return rule([*where.honest, lie, lie])

    where.rule = answer
    lie = attacks.make(name).craft(where)
    found = np.linalg.norm(answer(lie) - target)
    for c in (0.01, 0.3, 1.0, 3.0, 30.0, 1000.0):
        tried = attacks.make(f"{name}:scale={c}").craft(scene())
        assert found >= 0.98 * np.linalg.norm(answer(tried) - target)


@pytest.mark.parametrize("name", ["sparse-alie", "spectral"])
def test_between_whole_searches_the_last_scale_is_followed(name):
    """While the victim takes a lie only within a radius that changes; at a tenth of the cost."""
    memory, asked = {}, [0]
    for t in range(45):
        where = scene(memory=memory, round=t)
        radius = 10 * 2 ** np.sin(t / 5)

        def answer(lie, where=where, radius=radius):
            asked[0] += 1
            return lie if np.linalg.norm(lie - where.victim) <= radius else where.victim

        where.rule = answer
        lie = attacks.make(name).craft(where)
        assert 0.5 * radius <= np.linalg.norm(lie - where.victim) <= radius
    assert asked[0] == 3 * (21 + 9) + 42 * 3


def test_an_answer_that_is_not_finite_counts_as_farthest():
    ones = np.ones(3, np.float32)

    def rule(lie):
        return ones * np.nan if lie[0] > 500 else lie

    assert strongest(rule, lambda c: ones * np.float32(c), ones) > 500


def test_the_fiedler_vector_separates_two_cliques():
    graph = np.kron(np.eye(2), np.ones((4, 4)))
    graph[3, 4] = graph[4, 3] = 1
    v = attacks.fiedler_vector(graph)
    assert len({float(np.sign(x)) for x in v[:4]}) == 1
    assert np.sign(v[0]) == -np.sign(v[7])


def test_spectral_needs_the_graph():
    with pytest.raises(ConfigError, match="needs the honest graph"):
        attacks.make("spectral").craft(scene(fiedler=None))


@pytest.mark.parametrize("spec", ["gaussian:deviation=0", "alie:z=-1", "stale:delay=0", "mimic:warmup=0"])
def test_options_out_of_range_are_refused(spec):
    with pytest.raises(ConfigError, match="must be"):
        attacks.make(spec)


@pytest.mark.parametrize("attack", list(attacks.attacks))
@pytest.mark.parametrize("name", [name for name in aggregate.aggregators if name != "mean"])
def test_rules_survive_every_attack_within_the_honest_spread(attack, name):
    draw = np.random.default_rng(5)
    honest = draw.standard_normal((9, 200)).astype(np.float32) + 3
    where = scene(
        own=honest[0], honest=honest, victim=None, weights=None, n=11, f=2, fiedler=np.linspace(-1, 1, 9)
    )
    rule = aggregate.make(name, f=2)
    where.rule = lambda lie: aggregate.make(name, f=2)([lie, lie, *honest])
    lie = attacks.make(attack).craft(where)
    got = rule([lie, lie, *honest])
    spread = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    assert np.linalg.norm(got - honest.mean(axis=0)) <= 2 * spread
