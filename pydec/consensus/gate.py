"""The gate at every entry point: asks ``allow`` with the newest state, and counts and logs what it denies."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from pydec.consensus.access import Action, allow
from pydec.consensus.state.chain import ChainState
from pydec.errors import AccessDenied

_log = logging.getLogger(__name__)
_MOST = 1024  # kinds of denial that are told apart; identities cost nothing to make


class Gate:
    """Decides for one process who may do what; any thread may ask.

    Args:
        state: gives the newest state.
    """

    def __init__(self, state: Callable[[], ChainState]) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._denied: Counter[tuple[str, str, str, str]] = Counter()

    def check(self, identity: bytes, action: Action, resource: bytes = b"") -> None:
        """See ``access.allow``.

        Raises:
            AccessDenied: it may not; that is counted.
        """
        try:
            allow(self._state(), identity, action, resource)
        except AccessDenied as error:
            self.note(error)
            raise

    def allows(self, identity: bytes, action: Action, resource: bytes = b"") -> bool:
        """Whether an identity may do something; a denial is counted."""
        try:
            self.check(identity, action, resource)
        except AccessDenied:
            return False
        return True

    def note(self, error: AccessDenied, *, quiet: bool = False) -> None:
        """Count what was denied elsewhere; logged for the 1st, 10th, 100th ... time, unless others say so.

        Identities are public keys; nothing secret is in a denial.
        """
        kind = error.identity.hex(), error.action, error.resource.hex(), error.needed
        with self._lock:
            if kind not in self._denied and len(self._denied) >= _MOST:
                kind = ("", "do one of too many things", "", "")
            self._denied[kind] += 1
            count = self._denied[kind]
        if not quiet and str(count).rstrip("0") == "1":
            _log.warning("%s%s", error, f" ({count} times)" if count > 1 else "")

    def summary(self) -> list[dict[str, Any]]:
        """For ``summary.json``: ``identity``, ``action``, ``resource``, ``needed`` and ``count`` of each kind
        of denial, in the order of the first.
        """
        names = ("identity", "action", "resource", "needed")
        with self._lock:
            return [
                dict(zip(names, kind, strict=True)) | {"count": count} for kind, count in self._denied.items()
            ]
