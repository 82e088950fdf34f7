"""Which few of many stakeholders decide an epoch, and how likely it is that too many of them are faulty.

A committee of k seats is k different units of stake, drawn without replacement from all of them by a seed
that everybody knows, such as that of a view; a member's weight is the number of its seats. So no splitting of
stake among identities gains anything, and the faulty seats are distributed hypergeometrically: exactly,
whoever holds the units.

Sources: sortition by units of stake, and the size of a committee from the tail of the number of faulty seats:
Gilad, Hemo, Micali, Vlachos, Zeldovich, "Algorand: Scaling Byzantine Agreements for Cryptocurrencies", SOSP
2017, sections 5.1 and 7.5 (each unit by itself, so binomially); drawn without replacement: Zamani, Movahedi,
Raykova, "RapidChain: Scaling Blockchain via Full Sharding", CCS 2018, section 5.1. Hoeffding's bound
exp(-2 k (1/3 - b)^2), JASA 1963, theorems 2 and 4, holds for both; the sums here are exact.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from pydec.codec.wire import u64
from pydec.consensus.validators import MAX_VALIDATORS, Validator, ValidatorTable
from pydec.crypto.hashing import sha256
from pydec.errors import ConfigError

GRINDING_BITS = 20
"""Seeds that the proposer of an epoch's block can try, as a power of two; see ``epochs.view_of``."""


def draw(epoch: int, candidates: Iterable[Validator], seed: int, seats: int) -> ValidatorTable:
    """The committee of an epoch: the same on every node that has the candidates and the seed.

    With no more candidates' units than seats, all of them sit.

    Args:
        epoch: of the table.
        candidates: each identity once, in any order; those without stake are left out.
        seed: shared by all, in [0, 2^256), and known only when the candidates are fixed.
        seats: at most 1024.

    Returns:
        A table whose stakes are seats; their sum is ``seats``, or all stake if that is less.

    Raises:
        ConfigError: seats or seed out of range, or nobody has stake.

    Cost: one hash for each seat, and one pass over the candidates.
    """
    _check_seats(seats)
    if not 0 <= seed < 1 << 256:
        raise ConfigError(f"a seed is in [0, 2^256), got {seed}")
    pool = sorted((one for one in candidates if one.stake), key=lambda one: one.node_id)
    bounds = list(itertools.accumulate(one.stake for one in pool))
    if not bounds:
        raise ConfigError("a committee needs a candidate with stake, and there is none")
    if bounds[-1] <= seats:
        return ValidatorTable.of(epoch, pool)
    units: set[int] = set()
    held: Counter[int] = Counter()
    for number in itertools.count():
        digest = sha256(b"pydec.committee.v1", seed.to_bytes(32, "big"), u64(epoch), u64(number))
        unit = int.from_bytes(digest, "big") % bounds[-1]  # below 2^62: off from uniform by 2^-194 at most
        if unit not in units:
            units.add(unit)
            held[bisect.bisect_right(bounds, unit)] += 1
            if len(units) == seats:
                break
    return ValidatorTable.of(epoch, (replace(pool[place], stake=count) for place, count in held.items()))


def log_unsafe(total: int, faulty: int, seats: int) -> float:
    """Natural logarithm of the probability that a third or more of the seats is faulty.

    Then the committee may disagree or stand still: ``3 * b < W`` fails. With honest units that are silent
    counted among the faulty ones, it is the probability that it stands still.

    sum over j with 3 j >= k of C(F, j) C(W - F, k - j) / C(W, k), summed from logarithms of the terms.

    Args:
        total: units of stake, W.
        faulty: those of them that liars hold, F.
        seats: k; all units sit if there are fewer.

    Returns:
        At most 0; -inf if it cannot happen. The relative error of the probability is below 1e-9.

    Raises:
        ConfigError: numbers that cannot be.
    """
    if total < 1 or not 0 <= faulty <= total:
        raise ConfigError(f"faulty stake must be in [0, {max(total, 1)}], all stake at least 1, got {faulty}")
    _check_seats(seats)
    k = min(seats, total)
    least = -(-k // 3)
    first, last = max(least, k - (total - faulty)), min(k, faulty)
    if first > last:
        return -math.inf
    if least <= k - (total - faulty):
        return 0.0
    term = _log_choose(faulty, first) + _log_choose(total - faulty, k - first) - _log_choose(total, k)
    terms = [term]
    for j in range(first, last):
        up, down = (faulty - j) * (k - j), (j + 1) * (total - faulty - k + j + 1)
        term += math.log(up) - math.log(down)
        terms.append(term)
    largest = max(terms)
    return min(0.0, largest + math.log(math.fsum(math.exp(one - largest) for one in terms)))


def log_unsafe_ever(
    total: int, faulty: int, seats: int, epochs: int = 1, grinding_bits: float = GRINDING_BITS
) -> float:
    """Natural logarithm of a bound on: any of so many epochs has an unsafe committee.

    Whoever can try 2^g seeds takes the worst of them, and epochs add up: epochs * 2^g * P, by the union
    bound.

    Args:
        total, faulty, seats: see ``log_unsafe``.
        epochs: at least 1.
        grinding_bits: g; 0 for a seed that nobody can influence.
    """
    if epochs < 1 or not 0 <= grinding_bits < 256:
        raise ConfigError(
            f"epochs must be at least 1 and grinding bits in [0, 256), got {epochs} and {grinding_bits}"
        )
    once = log_unsafe(total, faulty, seats)
    return min(0.0, once + math.log(epochs) + grinding_bits * math.log(2))


def seats_for(
    total: int, faulty: int, log_target: float, epochs: int = 1, grinding_bits: float = GRINDING_BITS
) -> int | None:
    """The fewest seats, of 1, 4, 7, ..., for which ``log_unsafe_ever`` is at most ``log_target``.

    3 m + 1 seats stand m faulty ones, as do the two numbers above. None if not even 1024 are enough.
    """
    for seats in range(1, MAX_VALIDATORS + 1, 3):
        if log_unsafe_ever(total, faulty, seats, epochs, grinding_bits) <= log_target:
            return seats
    return None


def _check_seats(seats: int) -> None:
    if not 1 <= seats <= MAX_VALIDATORS:
        raise ConfigError(f"a committee has 1 to {MAX_VALIDATORS} seats, got {seats}")


def _log_choose(n: int, k: int) -> float:
    """log C(n, k), k at most some thousands and n anything: lgamma would lose all digits of a large n."""
    return math.fsum(math.log(n - i) - math.log(i + 1) for i in range(k))
