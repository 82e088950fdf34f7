"""One node of the ledger, put together: its directory, its replica, its identity and its transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydec.comm.transport import Stream, Transport
from pydec.consensus.driver import Driver
from pydec.consensus.file_storage import FileStorage
from pydec.consensus.genesis import Genesis
from pydec.consensus.hello import Greeter
from pydec.consensus.joining import Joining
from pydec.consensus.pacemaker import Pacemaker
from pydec.consensus.rejoin import Rejoin
from pydec.consensus.replay import recover
from pydec.consensus.replica import Member, Replica
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.state.parts import Account
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError

STAKE = 100  # of each rank of a job that makes its own chain: equal, and room for changes of a hundredth
FUND = 1024 * STAKE
"""Balance of rank 0, the admin, from which it lets newcomers in; it weighs nothing until it is bonded."""
FOUNDER = Role.TRAINER | Role.VALIDATOR | Role.DATA_OWNER
"""Roles of every rank of a job that makes its own chain; rank 0 is its admin as well."""


def founders(
    name: str,
    identities: Sequence[bytes],
    rules: Rules | None = None,
    roles: Mapping[int, Role] | None = None,
) -> Genesis:
    """The genesis of a job whose validators have equal stake; the first admin has the means to let others in.

    Args:
        name: for people; different for each chain, because the same genesis has the same chain id.
        identities: public key of every rank, 32 bytes each.
        rules: of the chain.
        roles: by rank; of those that are not in it ``FOUNDER``, and of rank 0 ``ADMIN`` as well.

    Raises:
        ConfigError: two ranks have one key, no rank votes, or none is an admin, who begins runs.
    """
    chosen = {rank: FOUNDER if rank else FOUNDER | Role.ADMIN for rank in range(len(identities))}
    if strange := (roles or {}).keys() - chosen.keys():
        raise ConfigError(
            f"--roles names rank {min(strange)}; the job that makes this ledger has ranks 0 to "
            f"{len(identities) - 1}"
        )
    chosen.update(roles or {})
    for role in (Role.ADMIN, Role.VALIDATOR):
        if not any(role in mine for mine in chosen.values()):
            raise ConfigError(f"--roles leaves nobody who is {role.names}; give some rank that role")
    banker = min(rank for rank, mine in chosen.items() if Role.ADMIN in mine)
    for rank, identity in enumerate(identities):
        if (first := list(identities).index(identity)) < rank:
            raise ConfigError(
                f"ranks {first} and {rank} have the same key {identity.hex()[:16]}: one key per rank, or "
                "their votes contradict each other; give each its own key file"
            )
    accounts = [
        Account(
            identity, identity, f"rank:{rank}", int(mine), granted=int(mine),
            balance=FUND if rank == banker else 0, stake=STAKE if Role.VALIDATOR in mine else 0,
        )
        for rank, identity in enumerate(identities)
        for mine in (chosen[rank],)
    ]  # fmt: skip
    return Genesis(name, tuple(sorted(accounts, key=lambda account: account.node_id)), rules or Rules())


def open_node(
    transport: Transport,
    directory: Path,
    key: SigningKey,
    *,
    start: bool = True,
    pace: Pacemaker | None = None,
    rejoin: bool = False,
    pins: dict[int, bytes] | None = None,
    whole: bool = False,
) -> Driver:
    """Start this rank's node from what its directory holds: everything in it is verified again.

    Args:
        transport: any stream of the cluster; the LEDGER stream is used.
        directory: of this node, made by ``file_storage.create``.
        key: its identity, which also votes.
        start: False leaves the thread out.
        pace: first durations of timers.
        rejoin: join again by itself when the others have evicted this node while it was away.
        pins: block hashes by height that the chain must have. A node far behind goes on from a snapshot, and
            nothing but a pin tells a chain from a fork of it by validators that have left since.
        whole: never use a snapshot: fetch and execute every block.

    Raises:
        LedgerError: the directory's files cannot be used.
    """
    storage = FileStorage(directory, key.public)
    try:
        past = recover(storage, storage.genesis)
        member = Member(past.chain_id, key.public, key)
        replica = Replica(member, past.state, (past.head, past.commit), pace)
        greeter = Greeter(key, past.chain_id, transport.rank, storage.incarnation)
        back = Rejoin(key, storage.record) if rejoin else None
        joining = Joining(replica, storage, past.shelf, pins, whole)
        return Driver(
            transport.stream(Stream.LEDGER),
            replica,
            storage,
            greeter,
            start=start,
            rejoin=back,
            joining=joining,
        )
    except BaseException:
        storage.close()
        raise
