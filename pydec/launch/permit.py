"""Whether who asks a running job for other ranks may: by the role of its key on the run's ledger.

The door keeps other users of the machine out; of those that come in, a run with a ledger wants to know who
they are. It draws a nonce, the asker signs it with the request, and the key's role decides. A run without a
ledger has no roles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydec.consensus.access import Action
from pydec.consensus.file_storage import GENESIS
from pydec.consensus.gate import Gate
from pydec.consensus.replay import replayed
from pydec.consensus.state.chain import ChainState
from pydec.crypto.signing import SigningKey, verify
from pydec.errors import AccessDenied, ConfigError, LedgerError, SignatureError

_DOMAIN = b"pydec.scale.v1"
_NONCE_BYTES = 32
Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Sends one answer to who asks, and gives what it says to it."""


class Permit:
    """Decides on requests for one supervisor.

    Args:
        run_dir: of the job at this moment, "" if it has none.

    Attributes:
        gate: counts what was denied; None before the first request to a run with a ledger.
    """

    def __init__(self, run_dir: Callable[[], str]) -> None:
        self._run_dir = run_dir
        self._state: ChainState | None = None
        self.gate: Gate | None = None

    def check(self, line: bytes, ask: Ask) -> None:
        """Return if a request may be met.

        Args:
            line: the request, as it came.
            ask: asks for the proof.

        Raises:
            ConfigError: it may not, or nobody can tell; says why.
            LookupError, ValueError, TypeError, OSError: no answer, or one that is none.
        """
        ledger = ledger_of(self._run_dir())
        if not ledger:
            return
        node = first_node(Path(ledger))
        if node is None:
            raise ConfigError(
                f"the run's ledger {ledger} has no node on this machine, and nobody here can tell who may ask"
            )
        nonce = os.urandom(_NONCE_BYTES)
        try:
            self._state = replayed(node).state
        except LedgerError as error:
            raise ConfigError(f"the run's ledger does not tell who may ask: {error}") from None
        chain_id = self._state.chain_id
        challenge = {"challenge": nonce.hex(), "node": str(node.resolve()), "chain": chain_id.hex()}
        said = ask({"words": "", "failed": False, "last": False, **challenge})
        identity, signature = (bytes.fromhex(str(said[name])) for name in ("identity", "signature"))
        try:
            verify(identity, _stated(chain_id, nonce, line), signature)
        except SignatureError as error:
            raise ConfigError(f"the request is not signed by the key that it names: {error}") from None
        self.gate = self.gate or Gate(self._newest)
        try:
            self.gate.check(identity, Action.SCALE)
        except AccessDenied as error:
            raise ConfigError(f"{error}; name an admin's key with --key") from None

    def _newest(self) -> ChainState:
        assert self._state is not None
        return self._state

    def denied(self) -> list[dict[str, Any]]:
        """What was denied, see ``Gate.summary``."""
        return self.gate.summary() if self.gate is not None else []


def prove(challenge: Mapping[str, Any], line: str, key: SigningKey) -> dict[str, str]:
    """What an asker says to a challenge.

    Args:
        challenge: as it came.
        line: the request.
        key: of who asks.

    Raises:
        LookupError, ValueError: it is none.
    """
    chain_id, nonce = (bytes.fromhex(challenge[name]) for name in ("chain", "challenge"))
    signature = key.sign(_stated(chain_id, nonce, line.encode()))
    return {"identity": key.public.hex(), "signature": signature.hex()}


def ledger_of(run_dir: str) -> str:
    """The directory of a run's ledger; "" if it keeps none, or cannot be read."""
    try:
        options = json.loads((Path(run_dir) / "config.json").read_bytes())["options"] if run_dir else {}
        return str(options.get("ledger") or "")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""


def first_node(base: Path) -> Path | None:
    """The directory of the ledger node of the lowest rank that has one on this machine."""
    found = [path.parent for path in base.glob(f"rank-*/{GENESIS}")]
    return min(found, key=lambda path: (len(path.name), path.name), default=None)


def _stated(chain_id: bytes, nonce: bytes, line: bytes) -> bytes:
    return _DOMAIN + chain_id + nonce + line.rstrip(b"\n")
