"""Who may do what: one function decides, from the ledger's state alone, and every entry point asks it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from pydec.consensus.roles import Role
from pydec.errors import AccessDenied

if TYPE_CHECKING:
    from pydec.consensus.state.chain import ChainState
    from pydec.consensus.state.parts import Account


class Action(enum.Enum):
    """What somebody may want to do, in words that follow "may not"."""

    CONFIGURE = "change options"
    GRANT_ROLES = "grant roles"
    REVOKE_ROLES = "revoke roles"
    BEGIN_RUN = "begin a run"
    REGISTER_DATA = "register a data set"
    GRANT_DATA = "grant access to the data set"
    READ_DATA = "read the data set"
    GOSSIP = "take part in gossip"
    VOTE = "vote and propose"
    READ_METRICS = "see metrics"
    READ_LEDGER = "read the ledger"


NEEDED: dict[Action, Role] = {
    Action.CONFIGURE: Role.ADMIN,
    Action.GRANT_ROLES: Role.ADMIN,
    Action.REVOKE_ROLES: Role.ADMIN,
    Action.BEGIN_RUN: Role.ADMIN,
    Action.REGISTER_DATA: Role.DATA_OWNER,
    Action.GRANT_DATA: Role.DATA_OWNER,
    Action.READ_DATA: Role.TRAINER | Role.DATA_OWNER,
    Action.GOSSIP: Role.TRAINER | Role.VALIDATOR,
    Action.VOTE: Role.VALIDATOR,
    Action.READ_METRICS: Role.ADMIN | Role.DATA_OWNER | Role.TRAINER | Role.VALIDATOR | Role.OBSERVER,
    Action.READ_LEDGER: Role.ADMIN | Role.DATA_OWNER | Role.TRAINER | Role.VALIDATOR | Role.OBSERVER,
}
"""Any one of these roles is enough. A data set asks for more: to own it, or to have been granted its key."""


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
    check_role(identity, account, action)
    if action not in (Action.GRANT_DATA, Action.READ_DATA):
        return
    record = state.datasets.get(resource)
    if record is None:
        raise AccessDenied(identity, action.value, resource, "a registered data set")
    if record.owner == identity:
        return
    if action is Action.GRANT_DATA:
        raise AccessDenied(identity, action.value, resource, "to be its owner")
    if record.encrypted and not any(reader.grantee == identity for reader in record.readers):
        raise AccessDenied(identity, action.value, resource, "its owner's grant")


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
