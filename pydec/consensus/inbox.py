"""Transactions that somebody lays into a node's directory, for the node to bring to the others.

Whoever can write there may, because every transaction is signed by who answers for it. A running job takes
them within seconds, another one at its next start. What is committed is removed; what is refused stays as
``NAME.refused``, with the reason.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from pydec.consensus.block import NO_HASH
from pydec.consensus.driver import Driver, Receipt
from pydec.consensus.state import execute
from pydec.consensus.state.chain import ChainState
from pydec.consensus.state.draft import Draft, NotYetError
from pydec.consensus.transactions import Body, Transaction, sign, transaction_id
from pydec.crypto.signing import SigningKey
from pydec.errors import FrameError, LedgerError, SetupError, TransactionError

FOLDER = "inbox"
_MOST_BYTES = 1 << 17
_EVERY_S = 1.0
_USED = "its number has been used: it was committed before, or another one of its sender has taken its place"


def put(directory: Path, transaction: bytes) -> Path:
    """Lay a signed transaction into a node's inbox; returns its file.

    Raises:
        SetupError: it cannot be written.
    """
    folder = directory / FOLDER
    path = folder / f"{transaction_id(transaction).hex()[:32]}.tx"
    part = path.with_suffix(".part")
    try:
        folder.mkdir(exist_ok=True)
        part.write_bytes(transaction)
        part.replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; use the node's own user") from None
    return path


def waiting(directory: Path) -> list[Transaction]:
    """What lies in a node's inbox, in the order of senders and numbers; without what is none."""
    found = []
    for path in (directory / FOLDER).glob("*.tx"):
        try:
            found.append(Transaction.decode(_read(path)))
        except (OSError, FrameError):
            continue
    return sorted(found, key=lambda transaction: (transaction.sender, transaction.sequence))


class Bundle:
    """Transactions of one sender that follow each other, and what already waits in the inbox: each is checked
    after those before it, and all are laid down together, or none.

    Args:
        directory: of the node.
        state: the newest that is known.
        key: of the sender.
    """

    def __init__(self, directory: Path, state: ChainState, key: SigningKey) -> None:
        self._directory, self._chain_id, self._key = directory, state.chain_id, key
        self._state, self._draft = state, Draft(state, state.height + 1, NO_HASH)
        self._later = 0  # of this sender's that wait for a later block, so that none after them can be judged
        self._made: list[bytes] = []
        for waits in waiting(directory):
            with contextlib.suppress(TransactionError):
                self._apply(waits.encode(), waits.sender)

    def __len__(self) -> int:
        return len(self._made)

    @property
    def state(self) -> ChainState:
        """The accounts, data sets and run as they will be after all of these; the rest as it is."""
        draft = self._draft
        return replace(self._state, accounts=draft.accounts, datasets=draft.datasets, run=draft.run)

    def say(self, body: Body) -> None:
        """Sign one more.

        Raises:
            TransactionError: the chain refuses it, also as a ``DeniedTransaction``.
        """
        account = self._draft.accounts.get(self._key.public)
        sequence = (account.sequence if account is not None else 0) + self._later
        data = sign(self._key, self._chain_id, sequence, body)
        self._apply(data, self._key.public)
        self._made.append(data)

    def put(self) -> list[Path]:
        """Lay all of them into the inbox; their files.

        Raises:
            SetupError: it cannot be written.
        """
        return [put(self._directory, data) for data in self._made]

    def _apply(self, data: bytes, sender: bytes) -> None:
        mine = sender == self._key.public
        if mine and self._later:
            self._later += 1
            return
        try:
            execute.apply(self._draft, data)
        except NotYetError:
            self._later += mine


class Inbox:
    """Looks into one node's inbox; no thread of its own.

    Args:
        directory: of the node.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._looked_s = -_EVERY_S
        self._given: dict[Path, Future[Receipt]] = {}

    def look(self, driver: Driver, now_s: float | None = None) -> list[Future[Receipt]]:
        """Submit what has come, and clear away what was decided.

        Args:
            driver: of the node.
            now_s: on the program's clock: looks at most once a second; None looks in any case.

        Returns:
            What is under way.
        """
        if now_s is not None and now_s - self._looked_s < _EVERY_S:
            return []
        self._looked_s = now_s or 0.0
        for path, future in list(self._given.items()):
            if future.done():
                del self._given[path]
                self._clear(path, future.exception())
        found = [(path, data) for path in self._folder.glob("*.tx") if (data := self._take(path)) is not None]
        state = driver.state
        assert isinstance(state, ChainState)
        for path, data in sorted(found, key=lambda item: _order(item[1])):
            if path in self._given:
                continue
            transaction = Transaction.decode(data)
            account = state.accounts.get(transaction.sender)
            following = 0 if account is None else account.sequence
            if transaction.sequence < following:
                self._clear(path, TransactionError(_USED))
            elif transaction.sequence < following + execute.AHEAD:  # others wait here, as pools refuse them
                self._given[path] = driver.submit(data)
        return list(self._given.values())

    def _take(self, path: Path) -> bytes | None:
        try:
            data = _read(path)
            Transaction.decode(data)
        except OSError:
            return None
        except FrameError as error:
            self._clear(path, error)
            return None
        return data

    def _clear(self, path: Path, error: BaseException | None) -> None:
        if isinstance(error, LedgerError):
            return  # the ledger has stopped here; the next start takes it
        try:
            if error is not None:
                path.with_suffix(".refused").write_text(f"{error}\n")
            path.unlink(missing_ok=True)
        except OSError:
            pass  # it is refused again at the next look


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise FrameError(f"more than {_MOST_BYTES} bytes")
    return data


def _order(data: bytes) -> tuple[bytes, int]:
    transaction = Transaction.decode(data)
    return transaction.sender, transaction.sequence
