"""Every exception that pydec raises on purpose.

Messages name the subject, the fact, the number and the way out. A fault of a peer names the peer.
"""

from __future__ import annotations

from typing import Any


class PydecError(Exception):
    """Base class of every error that pydec raises on purpose."""


class ConfigError(PydecError, ValueError):
    """An option, name, specification or combination that cannot work; the command line exits with 2."""


class SetupError(PydecError, RuntimeError):
    """Something on this machine is missing or does not fit: a library, a file, a permission."""


class FrameError(PydecError, ValueError):
    """Bytes that are no valid frame or payload. Decoders raise nothing else, whatever the bytes."""


class SignatureError(PydecError, ValueError):
    """A signature that is not one of that key over that message."""


class TransactionError(PydecError, ValueError):
    """A transaction that the ledger's state does not allow, or a block that holds one."""


class AccessDenied(PydecError, PermissionError):
    """An identity that wants to do what its roles and grants do not allow.

    Args:
        identity: node id of who wants to.
        action: what, in words that follow "may not".
        resource: root of the data set that it is about; empty: none.
        needed: what would allow it, in words that follow "it needs".
    """

    def __init__(self, identity: bytes, action: str, resource: bytes, needed: str) -> None:
        what = f" {resource.hex()[:16]}" if resource else ""
        super().__init__(f"{identity.hex()[:16]} may not {action}{what}: it needs {needed}")
        self.identity, self.action, self.resource, self.needed = identity, action, resource, needed


class DeniedTransaction(TransactionError, AccessDenied):
    """A transaction that its sender's roles do not allow; see ``AccessDenied`` for the arguments."""


class LedgerError(PydecError, RuntimeError):
    """Files of the ledger that are damaged, full, in use by another process, or of another chain or key."""


class StoreError(PydecError, RuntimeError):
    """Data of the store, or its source, that is missing, damaged, changing or in use; or a full disk."""


class ChunkError(StoreError):
    """An object of the store that is not here, or is not what its name says.

    Args:
        digest: its name.
        missing: whether it is not here; else it is damaged.
        message: what is wrong.
    """

    def __init__(self, digest: bytes, missing: bool, message: str) -> None:
        super().__init__(message)
        self.digest, self.missing = digest, missing


class Evicted(PydecError):
    """This rank is not in the view that begins: it counts as dead, it has left, or its role was taken.

    Args:
        rank: of this process.
        epoch: of the view.
        denied: why it may not take part, if an admin took its role.
    """

    def __init__(self, rank: int, epoch: int, denied: AccessDenied | None = None) -> None:
        why = "it may join again" if denied is None else f"its role was taken: {denied}"
        super().__init__(f"rank {rank} is no member of epoch {epoch}: the others go on without it; {why}")
        self.rank, self.epoch = rank, epoch


class LeftOut(PydecError):
    """This rank was silent for so long that the others go on without it; it wakes to this, and ends.

    Args:
        rank: of this process.
        by: rank that has told the others.
        silent_s: how long it had waited for this one.
    """

    def __init__(self, rank: int, by: int, silent_s: float) -> None:
        super().__init__(
            f"rank {rank} was silent for {silent_s:.3g} s: rank {by} has told all others, and they go on "
            "without it"
        )
        self.rank, self.by, self.silent_s = rank, by, silent_s


class CutOff(PydecError):
    """So many ranks are silent that those left may be the smaller part of two that both live.

    Args:
        silent: ranks that do not answer.
        size: ranks that nobody knows to be dead.
    """

    def __init__(self, silent: tuple[int, ...], size: int) -> None:
        super().__init__(
            f"{len(silent)} of {size} ranks are silent (ranks {', '.join(map(str, silent))}): nobody can "
            "tell whether they hang or go on elsewhere without this one, which has stopped"
        )
        self.silent, self.size = silent, size


class MismatchError(PydecError):
    """Ranks disagree on something that all must share; the message names it and both values."""


class NonFiniteError(PydecError, ArithmeticError):
    """A gradient or model holds NaN or infinity and the policy is to raise."""


class TooFewVectors(PydecError, ValueError):
    """A robust average of which too few vectors are usable, and no own model to keep instead."""


class BudgetSpent(PydecError):
    """A step that would tell more about its samples than the privacy budget allows; it was not taken."""


class HeterogeneityWarning(UserWarning):
    """What was asked for works, but is biased if the ranks' data are distributed differently."""


class RobustnessWarning(UserWarning):
    """What was asked for works, but liars can do more to it than they need to."""


class Stopped(PydecError):
    """The job was asked to stop by a signal.

    Args:
        signum: the signal that was received (2 for SIGINT, 15 for SIGTERM).
        origin: the rank that received it first.
    """

    def __init__(self, signum: int, origin: int) -> None:
        super().__init__(f"stopped by signal {signum}, received by rank {origin}")
        self.signum = signum
        self.origin = origin


class Regroup(Stopped):
    """All ranks have come to one step, from which the job goes on with other ranks.

    Args:
        carried: what this rank takes along.
    """

    def __init__(self, carried: Any) -> None:
        PydecError.__init__(self, "the ranks of the job change")
        self.signum, self.origin = 0, 0
        self.carried = carried


class PeerError(PydecError):
    """Something that a peer did, or did not do.

    Args:
        peer: rank of that peer.
        message: what happened, in words that follow "rank 3".
    """

    def __init__(self, peer: int, message: str) -> None:
        super().__init__(f"rank {peer} {message}")
        self.peer = peer


class PeerTimeout(PeerError, TimeoutError):
    """A peer did not send or receive before the deadline."""


class PeerLost(PeerError):
    """A peer is known to be gone."""


class ProtocolError(PeerError):
    """A peer sent something that the protocol forbids."""
