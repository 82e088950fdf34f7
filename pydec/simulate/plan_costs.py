"""What rounds cost: seconds on a link, all-reduce's beside them, and what a compressor does to a vector.

Times are of the alpha-beta model: a message of m bytes takes latency + m / rate (Hockney, "The communication
challenge for MPP", Parallel Computing 1994). Every rank has a link of its own, sends and receives at once,
and what it sends in a round shares the link. Memory and processors of others cost nothing here; encoding and
mixing do, at rates measured where the plan is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pydec import compress
from pydec.comm.frames import HEADER_BYTES
from pydec.compress.base import Compressor
from pydec.errors import ConfigError
from pydec.gossip.base import Algorithm, bucket_bounds
from pydec.gossip.edges import EdgeMixer
from pydec.simulate.network import Link

FRAMING = 1514 / 1448
"""Bytes on Ethernet for a byte of TCP's: 14 + 20 + 32 of headers around each 1448 (RFC 894, 9293, 7323)."""
HANDSHAKE = 3
"""Latencies of a large message: Open MPI asks the receiver, hears from it, and sends (rendezvous)."""
BACKWARD = 2 / 3
"""Share of a step in which all-reduce can hide: gradients come during the backward pass, which takes twice as
long as the forward one (Kaplan et al., arXiv:2001.08361, section 2.1)."""
_SAMPLE = 1 << 20
_TRIES = 3
BUFFER = 1 << 16
"""Bytes that a connection's sender may buffer, as docs/scaling.md says to ask of Open MPI; Linux doubles it
(socket(7), SO_SNDBUF)."""


def round_s(link: Link, sent: float, received: float, messages: int = 1) -> float:
    """Seconds until a rank has sent and received so many bytes, which begin together.

    Args:
        link: of every rank; jitter counts as if it were always at its most.
        sent, received: bytes of one rank, without the network's headers.
        messages: rendezvous one after the other, of a collective operation with so many steps.
    """
    carried_s = max(sent / link.up_bytes_per_s, received / link.down_bytes_per_s)
    return HANDSHAKE * (link.latency_s + link.jitter_s) * messages + FRAMING * carried_s


def consent_s(link: Link, neighbours: int, buckets: int, sent: float) -> float:
    """Seconds that consents wait for in a round in which a rank hears and tells as many neighbours.

    Every bucket from every neighbour needs the receiver's consent, which goes out behind what the system has
    buffered of the own packets: 2 ``BUFFER`` on each of the connections that share the link. At worst all
    take turns, and twice as long.

    Args:
        link: of every rank.
        neighbours: the most that one hears or tells.
        buckets: of what goes to one neighbour.
        sent: bytes of one rank.
    """
    return min(sent, neighbours**2 * buckets * 2 * BUFFER) / link.up_bytes_per_s


def allreduce_s(n_bytes: float, peers: int, link: Link) -> float:
    """Seconds of the faster of two all-reduces that send the fewest bytes there can be.

    Both send 2 (n - 1) / n of the buffer; round the ring that takes 2 (n - 1) messages one after the other
    (Patarasuk, Yuan, J. Parallel Distrib. Comput. 2009, section 3), by halving and doubling 2 ceil(log2 n)
    (Thakur, Rabenseifner, Gropp, Int. J. High Perform. Comput. Appl. 2005, section 4.5).
    """
    if peers == 1:
        return 0.0
    sent = 2 * (peers - 1) / peers * n_bytes
    messages = 2 * min(peers - 1, (peers - 1).bit_length())
    return round_s(link, sent, sent, messages) + consent_s(link, 1, messages, sent)


@dataclass(frozen=True)
class Codec:
    """What a compressor does to float32 numbers, measured on this machine, on one thread's call.

    Args:
        encode_s, mix_s: seconds an element to encode the own vector, and to add one decoded packet.
        error: norm of what is lost over the norm of the vector, of independent normal numbers: kind to
            quantisers, and the hardest there is for selections.
    """

    encode_s: float
    mix_s: float
    error: float


@lru_cache(maxsize=64)
def codec(spec: str) -> Codec:
    """Time a compressor on 2^20 normal numbers, the best of three after one that warms up.

    Raises:
        ConfigError: unknown name or option.
    """
    part = compress.make(spec)
    x = np.random.default_rng(0).standard_normal(_SAMPLE, np.float32)
    out, mixed = np.empty(part.max_bytes(x.size), np.uint8), np.zeros_like(x)
    length = part.encode_into(x, out)
    encode_s = _fastest(lambda: part.encode_into(x, out))
    mix_s = _fastest(lambda: part.accumulate([out[:length]], [0.5], mixed))
    lost = np.linalg.norm(x - part.decode(out[:length], mixed)) / np.linalg.norm(x)
    return Codec(encode_s / x.size, mix_s / x.size, float(lost))


def _fastest(action: Callable[[], object]) -> float:
    taken = []
    for _ in range(1 + _TRIES):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def packet_bytes(part: Compressor, elements: int, degree: int) -> float:
    """Bytes of one vector on its way to one neighbour, headers of all buckets included.

    Of compressors whose packets all have one length it is that length; of others a sample's, scaled up.
    """
    bounds = bucket_bounds(elements, part.block, degree)
    if not bounds:
        return 0.0
    lengths = {stop - start for start, stop in bounds}
    of = {length: _payload_bytes(part, length) for length in lengths}
    return HEADER_BYTES * len(bounds) + sum(of[stop - start] for start, stop in bounds)


def _payload_bytes(part: Compressor, n: int) -> float:
    sample = min(n, _SAMPLE)
    seen = _sample_bytes(part, sample)
    if seen == part.max_bytes(sample):
        return part.max_bytes(n)
    return seen * n / sample


@lru_cache(maxsize=256)
def _sample_bytes(part: Compressor, n: int) -> int:
    return len(part.encode(np.random.default_rng(0).standard_normal(n, np.float32)))


@dataclass(frozen=True)
class Vectors:
    """What an algorithm sends and keeps for a model.

    Args:
        packets: vectors of the model's size that go to every neighbour in a round.
        state: vectors of that size that it keeps beside parameters, gradients and the optimiser's.
        most: as many, packets on their way included, as it may ever hold.
    """

    packets: float
    state: float
    most: float


def vectors_of(algorithm: Algorithm, part: Compressor, degree: int, local_steps: int) -> Vectors:
    """Count them on a small vector: what the rule and its mixers say of themselves.

    Raises:
        ConfigError: an algorithm whose traffic does not follow from one vector: it averages gradients, works
            without rounds, or packs for each neighbour apart.
    """
    name = type(algorithm).__name__
    if algorithm.averages == "gradients" or algorithm.asynchronous or algorithm.windowed:
        raise ConfigError(
            f"a plan counts rounds of gossip that end, and {name} has none; plan dpsgd, which sends as much "
            "in a round, and stands beside all-reduce"
        )
    n = 1 << 14
    rule = algorithm.rule(np.zeros(n, np.float32), part, degree, local_steps)
    if any(isinstance(mixer, EdgeMixer) for mixer in rule.mixers):
        raise ConfigError(f"{name} packs for each neighbour apart, which no plan knows of; plan choco-peers")
    state = (rule.state_bytes + sum(mixer.state_bytes for mixer in rule.mixers)) / (4 * n)
    packets = sum(len(mixer.x) for mixer in rule.mixers) / n
    outbox = packets * part.max_bytes(n) / (4 * n)
    return Vectors(packets, state, max(float(algorithm.budget), state + outbox + 1 / 8))
