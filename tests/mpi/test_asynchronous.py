"""Asynchronous gossip over MPI: a slow rank holds nobody up, and all meet at the end."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pydec import compress, gossip, topology
from pydec.comm.collect import exact_mean

pytestmark = [pytest.mark.mpi(min_size=3), pytest.mark.timeout(120)]
N, ETA, SLOW = 50_000, np.float32(0.3), 1


def optima(size):
    return np.random.default_rng(3).standard_normal((size, 8)).astype(np.float32)


def connect(transport, x, code="none"):
    schedule, algorithm = topology.make("complete", size=transport.size), gossip.make("adsgd")
    mixer = algorithm.mixer(x, compress.make(code), schedule.degree)
    return algorithm.connect(transport, schedule, [mixer], epoch=0, seed=1)


def step(exchange, x, b, pause_s):
    """One step towards ``b``; 200 kB to every neighbour."""
    exchange.begin(0)
    time.sleep(pause_s)
    change = ETA * (x - b)
    exchange.finish()
    x -= change


@pytest.mark.parametrize("code", ["none", "int8"])
def test_a_slow_rank_holds_nobody_up_and_counts_no_less(mpi_transport, code):
    size, rank = mpi_transport.size, mpi_transport.rank
    b = np.resize(optima(size)[rank], N)
    x = np.zeros(N, np.float32)
    exchange = connect(mpi_transport, x, code)
    steps = 0
    if rank == SLOW:
        for _ in range(60):
            step(exchange, x, b, 8e-3)
            steps += 1
            while steps == 20 and min(versions[0] for versions in exchange.versions.values()) <= 62:
                time.sleep(1e-3)  # whoever were held up by this rank would never come so far
    else:
        while exchange.versions[SLOW][0] < 60:  # the others go on for as long as it takes
            step(exchange, x, b, 1e-3)
            steps += 1
    exchange.flush()
    counts = np.zeros(size)
    counts[rank] = steps
    exact_mean(mpi_transport, counts)
    assert np.delete(counts, SLOW).min() > counts[SLOW]
    eta = float(ETA)
    weights = topology.make("complete", size=size).weights(0)
    expected = np.linalg.solve(np.eye(size) * (1 + eta) - weights, eta * optima(size).astype(np.float64))
    tolerance = 1e-3 if code == "none" else 0.1  # the slow rank's 60 steps; the quantiser's rounding
    np.testing.assert_allclose(x[:8], expected[rank], atol=tolerance)


def test_a_rank_that_ends_early_waits_and_all_merge_exactly(mpi_transport):
    size, rank = mpi_transport.size, mpi_transport.rank
    b = np.resize(optima(size)[rank], N)
    x = np.zeros(N, np.float32)
    exchange = connect(mpi_transport, x)
    for _ in range(2 if rank == 0 else 40):
        step(exchange, x, b, 2e-3)
    exchange.flush()
    assert all(versions == [0] * len(versions) for versions in exchange.versions.values())
    own = x.astype(np.float64)
    exact_mean(mpi_transport, own)
    x[:] = own
    for _ in range(3):  # and train on
        step(exchange, x, x.copy(), 0.0)
    exchange.flush()
    np.testing.assert_allclose(x, own, atol=1e-6)
    assert exchange.wait_s > 0.0


def test_averages_of_two_keep_the_mean_and_answer_a_slow_rank(mpi_transport):
    """No rank waits for another, each average takes place on both sides, and all agree in the end."""
    size, rank = mpi_transport.size, mpi_transport.rank
    schedule, algorithm = topology.make("complete", size=size), gossip.make("ad-psgd")
    x = np.resize(optima(size)[rank], N)
    mixers = algorithm.rule(x, compress.make("int8"), schedule.degree).mixers
    exchange = algorithm.connect(mpi_transport, schedule, mixers, epoch=0, seed=1)
    for _ in range(12 if rank == SLOW else 40):
        exchange.begin(0)
        time.sleep(10e-3 if rank == SLOW else 2e-3)
        exchange.finish()
    exchange.begin(0)
    exchange.flush()
    mean = x.astype(np.float64)
    exact_mean(mpi_transport, mean)
    np.testing.assert_allclose(mean, np.resize(optima(size).mean(0), N), atol=1e-5)
    np.testing.assert_allclose(x, mean, atol=0.2)
    assert exchange.averages > 0


def test_rounds_have_the_same_bits_in_the_background(mpi_transport):
    """Packets of 4 MB move while the program sleeps."""
    size, rank = mpi_transport.size, mpi_transport.rank
    schedule = topology.make("one-peer-exponential", size=size)
    ends = []
    for background in (False, True):
        x = np.resize(optima(size)[rank], 1_000_000)
        mixer = gossip.make("dpsgd").mixer(x, compress.make("none"), schedule.degree)
        exchange = gossip.Exchange(mpi_transport, schedule, [mixer])
        if background:
            exchange.move_in_background()
        for t in range(4):
            exchange.begin(t)
            time.sleep(5e-3)
            exchange.finish()
        exchange.flush()
        ends.append(x)
    np.testing.assert_array_equal(*ends)
