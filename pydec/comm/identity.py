"""Who this rank is, and who the others may be: the keys behind a sealed transport.

Three ways to know the others. One key for the whole job, which every rank holds: only its holders are let
in. A key for each rank and a list of the public ones. Or fresh keys, trusted on first use: who only listens
reads nothing, but who can change messages while the run begins can stand between two ranks unseen.
A run that keeps a ledger has a fourth, in ``train.sealing``: the keys that the ledger names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydec.crypto import keyfile
from pydec.crypto.handshake import Credentials
from pydec.crypto.hashing import sha256
from pydec.crypto.runkey import ID_BYTES, new_run_key
from pydec.crypto.signing import KEY_BYTES, SigningKey
from pydec.crypto.suites import preferred
from pydec.errors import ConfigError, SetupError, SignatureError

RANK = "{rank}"
_DOMAIN = b"pydec.v1 transport"
_HOUR_S = 3600
_DAY_HOURS = 24
Admit = Callable[[int, bytes], None]


@dataclass(frozen=True)
class Identity:
    """Who this rank is, and whom it lets in.

    Args:
        key: of this rank.
        admit: see ``Credentials.admit``.
        alone: whether no two ranks may have one identity.
        words: how the others are known, for people.
        chain_id: of the ledger, or whatever else all ranks know; 32 bytes.
    """

    key: SigningKey
    admit: Admit
    alone: bool
    words: str
    chain_id: bytes = bytes(ID_BYTES)

    def credentials(self, now_s: float | None = None) -> Credentials:
        """A new run key, certified for this day, and what else a handshake needs.

        The epochs of the certificate are hours since 1970: a day back and a day on, so that clocks may
        differ. A run key that leaks is of no use after that, and those of the ledger are of another chain.

        Args:
            now_s: seconds since 1970; None asks the clock.
        """
        hour = int((time.time() if now_s is None else now_s) // _HOUR_S)
        chain_id = sha256(_DOMAIN, self.chain_id)
        key, certificate = new_run_key(self.key, chain_id, (max(0, hour - _DAY_HOURS), hour + _DAY_HOURS))
        return Credentials(key, certificate, self.admit, chain_id, hour, preferred())


def fresh() -> Identity:
    """A new key for this run alone, and everybody is let in with the key that they first show."""
    return Identity(
        SigningKey.generate(),
        lambda rank, identity: None,
        True,
        "fresh keys, trusted on first use: safe from listeners, not from who can change messages as the run "
        "begins; --key is",
    )


def shared(key: SigningKey) -> Identity:
    """One key for all ranks; its holders are let in."""

    def admit(rank: int, identity: bytes) -> None:
        if identity != key.public:
            raise SignatureError(
                f"its key {identity.hex()[:16]} is not this job's {key.public.hex()[:16]}: on a host that is "
                "new to a run, --resume needs --key beside it"
            )

    return Identity(key, admit, False, f"only holders of key {key.public.hex()[:16]} are let in")


def listed(
    key: SigningKey, keys: Sequence[bytes | None], source: str, chain_id: bytes = bytes(ID_BYTES)
) -> Identity:
    """A key for each rank.

    Args:
        key: of this rank.
        keys: public keys by rank; None: of none that is known, so not let in.
        source: where they come from, for people.
        chain_id: see ``Identity``.
    """

    def admit(rank: int, identity: bytes) -> None:
        expected = keys[rank] if rank < len(keys) else None
        if expected is None:
            raise SignatureError(f"{source} has no key for rank {rank}")
        if identity != expected:
            raise SignatureError(
                f"its key {identity.hex()[:16]} is not the {expected.hex()[:16]} that {source} has for "
                f"rank {rank}"
            )

    return Identity(key, admit, True, f"each rank has the key that {source} names", chain_id)


def given(key: str, peers: str, passphrase: str, rank: int) -> Identity:
    """The identity that the user's options ask for.

    Args:
        key: where this rank's key is, see ``keyfile.from_source``; ``{rank}`` in it stands for the rank.
            Empty: a fresh one.
        peers: file with the public keys of all ranks, one a line, in the order of ranks; empty: all have
            ``key``.
        passphrase: where that of the key file is, ``env:NAME`` or ``fd:NUMBER``; empty: it has none.
        rank: of this process.

    Raises:
        ConfigError: options that do not fit together, or a key that cannot be had.
        SetupError: a key file that others may read, or that is none.
    """
    if not key:
        if peers or passphrase:
            raise ConfigError("--peers and --passphrase-from go with --key; name this rank's key with --key")
        return fresh()
    phrase = keyfile.secret_from(passphrase) if passphrase else None
    mine = keyfile.from_source(key.replace(RANK, str(rank)), phrase)
    if peers:
        return of_list(mine, peers, rank)
    if RANK in key:
        raise ConfigError(
            f"--key {key} gives every rank a key of its own; --peers FILE must list their public keys "
            f"(pydec keys "
            "show), one a line, in the order of ranks"
        )
    return shared(mine)


def of_list(key: SigningKey, peers: str, rank: int) -> Identity:
    """A key for each rank, the public ones in a file.

    Args:
        key: of this rank.
        peers: the file; one key a line, in the order of ranks.
        rank: of this process.

    Raises:
        ConfigError, SetupError: the file cannot be used, or has another key for this rank.
    """
    keys = _read(Path(peers))
    if rank >= len(keys) or keys[rank] != key.public:
        there = keys[rank].hex()[:16] if rank < len(keys) else "none"
        raise ConfigError(
            f"--peers {peers} has key {there} for rank {rank}, whose key is {key.public.hex()[:16]}; "
            f"one line "
            "a rank, in their order"
        )
    return listed(key, keys, peers)


def _read(path: Path) -> list[bytes]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"--peers {path} cannot be read: {error}") from None
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            keys.append(bytes.fromhex(words[0]))
        except ValueError:
            keys.append(b"")
        if len(keys[-1]) != KEY_BYTES or len(words) > 1:
            raise ConfigError(
                f"--peers {path}, line {number}: expected a public key, {2 * KEY_BYTES} hexadecimal digits"
            )
    for rank, key in enumerate(keys):
        if key in keys[:rank]:
            raise ConfigError(
                f"--peers {path}: ranks {keys.index(key)} and {rank} have one key; each needs its own"
            )
    return keys
