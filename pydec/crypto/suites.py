"""The two ciphers that messages are sealed with, and which of them this machine is faster at.

AES-256-GCM (NIST SP 800-38D) where the processor has AES instructions, ChaCha20-Poly1305 (RFC 8439) else.
Which one that is is measured, once per process: a name in ``/proc/cpuinfo`` says nothing about the library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import cache
from typing import Any

from pydec.errors import ConfigError, SetupError

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
_TRIAL_BYTES, _TRIALS = 1 << 18, 5


class Suite(IntEnum):
    """Ciphers by the number that stands for them in messages."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2

    @property
    def words(self) -> str:
        """The name that people know it by."""
        return "AES-256-GCM" if self is Suite.AES_256_GCM else "ChaCha20-Poly1305"


def cipher(suite: Suite, key: bytes) -> Any:
    """The library's object for a key of 32 bytes; has ``encrypt_into`` and ``decrypt_into``."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

    return (AESGCM if suite is Suite.AES_256_GCM else ChaCha20Poly1305)(key)


@cache
def preferred() -> tuple[Suite, ...]:
    """Both suites, the faster one on this machine first; measured once per process, in some milliseconds.

    Raises:
        SetupError: a cipher does not take back what it sealed, or takes what was changed.
    """
    return tuple(sorted(Suite, key=seconds))


def seconds(suite: Suite, clock: Callable[[], float] = time.perf_counter) -> float:
    """Shortest time in which a suite seals 256 KiB, in seconds; checks on the way that it works.

    Raises:
        SetupError: see ``preferred``.
    """
    from cryptography.exceptions import InvalidTag

    tool, plain = cipher(suite, bytes(KEY_BYTES)), bytes(_TRIAL_BYTES)
    sealed, opened = bytearray(_TRIAL_BYTES + TAG_BYTES), bytearray(_TRIAL_BYTES)
    times = []
    for trial in range(_TRIALS):  # with a key that protects nothing
        began = clock()
        tool.encrypt_into(trial.to_bytes(NONCE_BYTES, "big"), plain, b"pydec", sealed)
        times.append(clock() - began)
    tool.decrypt_into((_TRIALS - 1).to_bytes(NONCE_BYTES, "big"), sealed, b"pydec", opened)
    sealed[_TRIAL_BYTES // 2] ^= 1
    try:
        tool.decrypt_into(
            (_TRIALS - 1).to_bytes(NONCE_BYTES, "big"), sealed, b"pydec", bytearray(_TRIAL_BYTES)
        )
    except InvalidTag:
        if bytes(opened) == plain:
            return min(times)
    raise SetupError(f"{suite.words} of the cryptography library does not work here; reinstall cryptography")


def choose(ours: Sequence[Suite], theirs: Sequence[Suite]) -> Suite:
    """The suite for a pair: the one that both like best, else ChaCha20-Poly1305, which no machine is slow at.

    Args:
        ours, theirs: what each side takes, the faster one first.

    Raises:
        ConfigError: they have none in common.
    """
    common = [suite for suite in ours if suite in theirs]
    if not common:
        raise ConfigError("two peers have no cipher suite in common; all ranks must run the same pydec")
    if ours[0] == theirs[0] or len(common) == 1:
        return common[0]
    return Suite.CHACHA20_POLY1305
