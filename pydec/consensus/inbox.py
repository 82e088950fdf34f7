"""Transactions that somebody lays into a node's directory, for the node to bring to the others.

Whoever can write there may, because every transaction is signed by who answers for it. A running job takes
them within seconds, another one at its next start. What is committed is removed; what is refused stays as
``NAME.refused``, with the reason.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from pydec.consensus.driver import Driver, Receipt
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import Transaction, transaction_id
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
            if account is not None and transaction.sequence < account.sequence:
                self._clear(path, TransactionError(_USED))
            else:
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
