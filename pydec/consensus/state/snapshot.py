"""A state as bytes, for a newcomer that does not execute the whole chain; checked against ``state_root``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydec.codec import fields
from pydec.codec.fields import DIGEST, U16, U64, Codec
from pydec.consensus.rules import RULES
from pydec.consensus.state import streams
from pydec.consensus.state.chain import ChainState
from pydec.consensus.state.parts import ACCOUNT, DATASET, PAST_TABLE, PRESENCE, RUN, SUPPLY, TABLE, WORK
from pydec.consensus.state.streams import PRIORITY_BYTES
from pydec.consensus.validators import MAX_VALIDATORS
from pydec.errors import FrameError

MAX_SNAPSHOT_BYTES = 1 << 28
_MOST = 1 << 20


def _write_priority(out: fields.Writer, value: int) -> None:
    out.append(value.to_bytes(PRIORITY_BYTES, "big", signed=True))


_PRIORITY: Codec[int] = Codec(
    _write_priority, lambda reader: int.from_bytes(reader.take(PRIORITY_BYTES), "big", signed=True)
)


def _mapping(item: Codec[Any], key: Callable[[Any], bytes]) -> Codec[dict[bytes, Any]]:
    """Values by their key, in its order."""
    listed = fields.many(item, _MOST, key=key)
    return Codec(
        lambda out, values: listed.write(out, tuple(values[name] for name in sorted(values))),
        lambda reader: {key(value): value for value in listed.read(reader)},
    )


_STATE: Codec[ChainState] = fields.record(
    ChainState,
    chain_id=DIGEST,
    height=U64,
    leader=U16,
    priorities=fields.many(_PRIORITY, MAX_VALIDATORS),
    recent=fields.many(DIGEST, 1 << 10),
    presence=fields.many(PRESENCE, MAX_VALIDATORS),
    effect_round=U64,
    changed=U64,
    origin=DIGEST,
    table=TABLE,
    rules=RULES,
    run=RUN,
    work=WORK,
    supply=SUPPLY,
    accounts=_mapping(ACCOUNT, lambda account: account.node_id),
    datasets=_mapping(DATASET, lambda record: record.root),
    tables=fields.many(PAST_TABLE, 1 << 13),
)
"""The parts of ``streams`` one after the other."""


def encode(state: ChainState) -> bytes:
    """Canonical bytes of a state."""
    return b"".join(streams.parts(state))


def decode(data: bytes, chain_id: bytes, root: bytes | None = None) -> ChainState:
    """The state of these bytes.

    Args:
        data: from anybody.
        chain_id: of the chain it must be of.
        root: ``state_root`` of a block that a quorum decided, which it must have; None checks the form alone.

    Raises:
        FrameError: it is none, of another chain, or has another root.
    """
    if len(data) > MAX_SNAPSHOT_BYTES:
        raise FrameError(f"a snapshot has at most {MAX_SNAPSHOT_BYTES} bytes, got {len(data)}")
    state = _STATE.decode(data, "a snapshot")
    if state.chain_id != chain_id:
        raise FrameError(f"a snapshot of chain {state.chain_id.hex()[:16]}, not of {chain_id.hex()[:16]}")
    if len(state.table) != len(state.priorities) or state.leader >= len(state.table):
        raise FrameError("the rotation of a snapshot does not fit its table")
    if root is not None and state.root() != root:
        raise FrameError(
            f"the snapshot of height {state.height} has root {state.root().hex()[:16]}, the chain says "
            f"{root.hex()[:16]}"
        )
    return state
