"""Who may do what: one function decides, from the ledger's state alone, and every entry point asks it.

``allow`` answers for an identity and a state. ``gate.Gate`` asks it with the newest state, and counts and
logs what it denies. Transactions are judged by the same rules while a block is executed (``Draft.need``), so
that all nodes agree; docs/security.md lists the entry points.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from pydec.consensus.roles import SELF_CHOSEN, Role
from pydec.errors import AccessDenied

if TYPE_CHECKING:
    from pydec.consensus.state.chain import ChainState
    from pydec.consensus.state.parts import Account, DatasetRecord


class Action(enum.Enum):
    """What somebody may want to do, in words that follow "may not"."""

    JOIN = "join"
    CONFIGURE = "change options"
    GRANT_ROLES = "grant roles"
    REVOKE_ROLES = "revoke roles"
    BEGIN_RUN = "begin a run"
    SCALE = "change the number of ranks"
    REGISTER_DATA = "register a data set"
    GRANT_DATA = "grant access to the data set"
    READ_DATA = "read the data set"
    SERVE_DATA = "keep and serve the data set"
    GOSSIP = "take part in gossip"
    VOTE = "vote and propose"
    READ_METRICS = "see metrics"
    READ_LEDGER = "read the ledger"


_ANY = Role.ADMIN | Role.DATA_OWNER | Role.TRAINER | Role.VALIDATOR | Role.OBSERVER
NEEDED: dict[Action, Role] = {
    Action.CONFIGURE: Role.ADMIN,
    Action.GRANT_ROLES: Role.ADMIN,
    Action.REVOKE_ROLES: Role.ADMIN,
    Action.BEGIN_RUN: Role.ADMIN,
    Action.SCALE: Role.ADMIN,
    Action.REGISTER_DATA: Role.DATA_OWNER,
    Action.GRANT_DATA: Role.DATA_OWNER,
    Action.READ_DATA: Role.TRAINER | Role.DATA_OWNER,
    Action.SERVE_DATA: Role.TRAINER | Role.VALIDATOR | Role.DATA_OWNER,
    Action.GOSSIP: Role.TRAINER | Role.VALIDATOR,
    Action.VOTE: Role.VALIDATOR,
    Action.READ_METRICS: _ANY,
    Action.READ_LEDGER: _ANY,
}
"""Any one of these roles is enough. A data set asks for more: to own it, or to have been granted its key. To
join takes no role, but one to be had: see ``may_take``."""
_OF_DATA = (Action.GRANT_DATA, Action.READ_DATA, Action.SERVE_DATA)


def allow(state: ChainState, identity: bytes, action: Action, resource: bytes = b"") -> None:
    """Whether an identity may do something, by the state after the last committed block.

    Args:
        state: of the chain.
        identity: node id of who wants to.
        action: what.
        resource: root of the data set that it is about, if any.

    Raises:
        AccessDenied: it may not; the error says what it needs.
    """
    account = state.accounts.get(identity)
    if action is Action.JOIN:
        admission = dict(state.run.options).get("admission", state.rules.admission)
        check_join(identity, account, Role(account.roles) if account else Role(0), admission)
        return
    check_role(identity, account, action)
    if action in _OF_DATA:
        record = state.datasets.get(resource)
        if record is None:
            raise AccessDenied(identity, action.value, resource, "a registered data set")
        check_data(identity, record, action)


def check_role(identity: bytes, account: Account | None, action: Action) -> None:
    """Whether an account has a role for an action; a validator without stake has no vote.

    Raises:
        AccessDenied: it has none.
    """
    roles = Role(0) if account is None else Role(account.roles)
    enough = bool(roles & NEEDED[action])
    if action is Action.VOTE and account is not None and not account.is_validator:
        enough = False
    if not enough:
        needed = NEEDED[action].names.replace(", ", " or ")
        raise AccessDenied(identity, action.value, b"", f"the role {needed}, and has {roles.names}")


def check_data(identity: bytes, record: DatasetRecord, action: Action) -> None:
    """Whether an identity with a role for it may do something with a data set.

    Who serves an encrypted one sees no more than its bytes, and needs no grant.

    Raises:
        AccessDenied: only its owner may, or who was granted its key.
    """
    if record.owner == identity or action is Action.SERVE_DATA:
        return
    if action is Action.GRANT_DATA:
        raise AccessDenied(identity, action.value, record.root, "to be its owner")
    if record.encrypted and not any(reader.grantee == identity for reader in record.readers):
        raise AccessDenied(identity, action.value, record.root, "its owner's grant")


def may_take(account: Account | None, admission: str) -> Role:
    """Roles that a JOIN may ask for: those that an admin granted, and where entry is open to all who pay for
    it those that anybody may choose, less what an admin took away.

    Args:
        account: of who joins; None: the chain does not know it.
        admission: of the chain, see ``Rules``.
    """
    chosen = Role(0) if admission == "invite" else SELF_CHOSEN
    if account is None:
        return chosen
    return Role(0) if account.slashed else (Role(account.granted) | chosen) & ~Role(account.barred)


def check_join(identity: bytes, account: Account | None, asked: Role, admission: str) -> None:
    """Whether an identity may come in with these roles; with any at all, if it names none.

    Raises:
        AccessDenied: it may not.
    """
    allowed = may_take(account, admission)
    if account is not None and account.slashed:
        raise AccessDenied(identity, Action.JOIN.value, b"", "a key that has lost no stake by its own fault")
    if not allowed or asked & ~allowed:
        wanted = f"{Action.JOIN.value} as {(asked & ~allowed).names}" if asked else Action.JOIN.value
        raise AccessDenied(
            identity, wanted, b"", f"an admin's grant; without one it may take {allowed.names}"
        )
