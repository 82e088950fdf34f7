"""Whether the messages of a job are sealed, and with which keys: the options behind ``--secure``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydec.comm.detect import Launch, launch
from pydec.comm.transport import Transport
from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.comm.identity import Identity

Mode = Literal["on", "off", "auto"]


@dataclass(frozen=True)
class Sealing:
    """What the user asks for.

    Args:
        mode: "on", "off", or "auto": on where ranks are on more than one host.
        key, peers, passphrase: see ``identity.given``.
        pad: whether to hide lengths.
        of_rank: gives a rank's identity in another way, from the ledger; excludes ``key``.

    Raises:
        ConfigError: another mode, or keys without sealing.
    """

    mode: str = "auto"
    key: str = ""
    peers: str = ""
    passphrase: str = ""
    pad: bool = False
    of_rank: Callable[[int], Identity] | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f"--secure must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if self.mode == "off" and (self.key or self.peers or self.pad):
            raise ConfigError("--key, --peers and --pad are for sealed messages; leave --secure off out")
        if self.key and self.of_rank is not None:
            raise ConfigError(
                "--key with --ledger: a rank's key is that of its node of the ledger; leave --key out"
            )

    def identity(self, rank: int) -> Identity:
        """Who a rank is.

        Raises:
            ConfigError, SetupError: see ``identity.given``.
        """
        if self.of_rank is not None:
            return self.of_rank(rank)
        from pydec.comm.identity import given  # what need not seal loads no cipher

        return given(self.key, self.peers, self.passphrase, rank)


def wanted(asked: Sealing, transport: Transport, found: Launch | None) -> bool:
    """Whether to seal.

    What decides "auto" comes from this rank's launcher and from no message, so that nobody on the network can
    talk a rank out of it. Where the launcher does not say how many ranks are on this host, they count as
    being on several. Keys that are given are wanted to be used.

    Args:
        asked: by the user.
        transport: of the job.
        found: what the launcher says; None for clusters inside one process.
    """
    if asked.mode == "off" or transport.size == 1:
        return False
    if asked.mode == "on" or asked.key:
        return True
    return found is not None and (found.local_size is None or found.local_size < found.size)


def sealed(asked: Sealing, transport: Transport, *, in_job: bool) -> Transport:
    """The transport, or one that seals; all ranks call it together.

    Args:
        asked: by the user; the same on all ranks.
        transport: of the job, on which nothing has been said yet.
        in_job: whether a launcher started this process.

    Raises:
        ConfigError, SetupError, ProtocolError: no key, or a peer that is not to be let in; see ``meet.seal``.
    """
    if not wanted(asked, transport, launch() if in_job else None):
        return transport
    from pydec.comm.meet import seal

    result = seal(transport, asked.identity(transport.rank), pad=asked.pad)
    job = getattr(transport, "job", None)  # of MPI: last words go through it, too
    if job is not None:
        job.sealed = result
        job.posts.protect(result.sessions)
    return result


def protection(transport: Transport) -> str:
    """What protects the messages of a job, in one line for its start."""
    return getattr(transport, "words", "") or "not sealed; --secure on seals them"


def protected(transport: Transport) -> dict[str, Any] | None:
    """For ``summary.json``: how messages were sealed, see ``SecureTransport.summary``; None if they "
    "were not.
    """
    found: dict[str, Any] | None = transport.summary() if hasattr(transport, "summary") else None
    return found
