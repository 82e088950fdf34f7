"""Proof of work as the price of entry: nobody joins by the thousand for nothing.

A solution is a nonce whose hash, over (chain, period, recent block, joining key, nonce), is below the chain's
target. The recent block keeps solutions from being stocked, the key from being stolen. It buys the smallest
stake and no more; votes count stake (specification, rule 12). ``sha256`` is checked in a microsecond and
favours special hardware; ``scrypt`` (RFC 7914, N = 2^14, r = 8: 16 MiB) takes 30 ms and favours memory.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydec.errors import TransactionError

PUZZLES = ("sha256", "scrypt")
MAX_TARGET = (1 << 256) - 1
_DOMAIN = b"pydec.puzzle.v1"
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1
_SCRYPT_MEMORY = 64 << 20
_SLICE_S = 0.01  # between two looks at ``stop``


@dataclass(frozen=True)
class Puzzle:
    """What a solution is bound to.

    Args:
        kind: one of ``PUZZLES``.
        chain_id, block, key: 32 bytes each: the chain, a recent committed block, the joining identity.
        period: number of the retargeting period, see ``retarget``.
        target: in [1, 2^256); a hash passes with probability target / 2^256.
    """

    kind: str
    chain_id: bytes
    period: int
    block: bytes
    key: bytes
    target: int

    def __post_init__(self) -> None:
        if self.kind not in PUZZLES:
            raise ValueError(f"unknown puzzle {self.kind!r}; known: {', '.join(PUZZLES)}")
        if not 1 <= self.target <= MAX_TARGET:
            raise ValueError(f"a puzzle's target is in [1, 2^256), got {self.target}")

    @property
    def expected_tries(self) -> int:
        """Mean number of nonces to a solution."""
        return -(-(MAX_TARGET + 1) // self.target)

    def value(self, nonce: int) -> int:
        """The hash of a nonce in [0, 2^64), as a number."""
        tail = nonce.to_bytes(8, "big")
        if self.kind == "sha256":
            hasher = self._started()
            hasher.update(tail)
            return int.from_bytes(hasher.digest(), "big")
        salt = self._started().digest()
        found = hashlib.scrypt(
            tail, salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, maxmem=_SCRYPT_MEMORY, dklen=32
        )
        return int.from_bytes(found, "big")

    def verify(self, nonce: int) -> None:
        """Check a solution.

        Raises:
            TransactionError: its hash is not below the target.
        """
        if self.value(nonce) >= self.target:
            raise TransactionError(
                f"nonce {nonce} does not solve the {self.kind} puzzle of key {self.key.hex()[:16]} for block "
                f"{self.block.hex()[:16]}; about {self.expected_tries} tries are needed"
            )

    def solve(
        self,
        progress: Callable[[int, int], None] = lambda tried, expected: None,
        stop: Callable[[], bool] = lambda: False,
        start: int = 0,
        step: int = 1,
    ) -> int | None:
        """Search for a nonce.

        Runs beside other work: scrypt releases the GIL, and between slices of 10 ms of hashes the search
        yields it. Several searchers share the work by ``start=i, step=number of searchers``.

        Args:
            progress: called after every slice with the number of tries and their expected number.
            stop: asked after every slice; True ends the search.
            start, step: the nonces tried: start, start + step, ...

        Returns:
            A solution, or None if stopped.
        """
        nonce, tried, slice_end = start, 0, time.monotonic() + _SLICE_S
        hasher, target = self._started(), self.target
        while True:
            if self.kind == "sha256":
                attempt = hasher.copy()
                attempt.update(nonce.to_bytes(8, "big"))
                found = int.from_bytes(attempt.digest(), "big") < target
            else:
                found = self.value(nonce) < target
            tried += 1
            if found:
                progress(tried, self.expected_tries)
                return nonce
            nonce += step
            if (tried % 1024 == 0 or self.kind != "sha256") and time.monotonic() >= slice_end:
                progress(tried, self.expected_tries)
                if stop():
                    return None
                time.sleep(0)
                slice_end = time.monotonic() + _SLICE_S

    def _started(self) -> hashlib._Hash:
        """SHA-256 of everything but the nonce, all of fixed length."""
        return hashlib.sha256(
            _DOMAIN + self.kind.encode().ljust(8, b"\0") + self.chain_id + self.period.to_bytes(8, "big")
            + self.block + self.key
        )  # fmt: skip


def retarget(target: int, joins: int, wanted: int) -> int:
    """The next period's target after one with ``joins`` where ``wanted`` were planned.

    Proportional, by a factor of 2 at most either way, in integers. The period is a number of blocks and not
    an epoch: an epoch ends with every change of members, so most have one join, and counting it says nothing.
    """
    if joins < 0 or wanted < 1:
        raise ValueError(f"retarget needs joins >= 0 and wanted >= 1, got {joins} and {wanted}")
    proportional = target * wanted // joins if joins else 2 * target
    return min(max(proportional, target // 2, 1), 2 * target, MAX_TARGET)
