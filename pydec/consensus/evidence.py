"""Proof that a validator broke the rules: two statements that no honest node signs both.

Every disagreement leaves such pairs from more than a third of the stake (specification, section 3), and no
node that keeps its safety record can ever be shown to have signed one.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydec.codec.wire import Reader, checked
from pydec.consensus.certificate import Verify
from pydec.consensus.signed import Kind, SignedStatement
from pydec.crypto.signing import verify as verify_signature

MAX_EVIDENCE_BYTES = 2 * (1 + 32 + 8 + 8 + 4 + 32 + 64)


class EvidenceError(ValueError):
    """Two statements that prove nothing, and why."""


def conflict(first: SignedStatement, second: SignedStatement) -> str | None:
    """What two statements of one key, chain, epoch and height prove (rule 13), None for nothing.

    (a) two PROPOSALs, PREPAREs or COMMITs of one round name different blocks; (b) two TIMEOUTs of one round
    know different high rounds; (c) a TIMEOUT of round r or later knows less than r, but its key signed a
    COMMIT in r: it forgot what it had committed to.
    """
    if (first.chain_id, first.epoch, first.height) != (second.chain_id, second.epoch, second.height):
        return None
    if first.kind is second.kind:
        if first.round != second.round or first.body == second.body:
            return None
        return f"two {first.kind.name}s in round {first.round}"
    commit, timeout = sorted((first, second), key=lambda statement: statement.kind)
    if commit.kind is not Kind.COMMIT or timeout.kind is not Kind.TIMEOUT:
        return None
    if not timeout.high_round < commit.round <= timeout.round:
        return None
    return f"COMMIT in round {commit.round} forgotten in the TIMEOUT of round {timeout.round}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two conflicting statements; raises EvidenceError if they do not conflict. Signatures: ``verify``.

    Args:
        first, second: in increasing order, so that a pair has one encoding; use ``of`` for any order.
    """

    first: SignedStatement
    second: SignedStatement

    def __post_init__(self) -> None:
        if conflict(self.first, self.second) is None:
            raise EvidenceError("the two statements of an evidence do not contradict each other")
        if not self.first < self.second:
            raise EvidenceError("the two statements of an evidence are not in order")

    @classmethod
    def of(cls, one: SignedStatement, other: SignedStatement) -> Evidence:
        """The evidence of two statements in any order."""
        return cls(min(one, other), max(one, other))

    @property
    def height(self) -> int:
        """Where it happened."""
        return self.first.height

    @property
    def epoch(self) -> int:
        """Which table names the key."""
        return self.first.epoch

    def describe(self) -> str:
        """What it proves, in a few words."""
        return f"{conflict(self.first, self.second)} at height {self.height}"

    def encode(self) -> bytes:
        """Canonical bytes."""
        return self.first.encode() + self.second.encode()

    @classmethod
    def decode(cls, data: bytes) -> Evidence:
        """The evidence of these bytes, signatures not checked.

        Raises:
            FrameError: they are none.
        """
        reader = Reader(data, "an evidence")
        first, second = SignedStatement.read(reader), SignedStatement.read(reader)
        reader.end()
        return checked("an evidence", cls, first, second)


def verify(evidence: Evidence, key: bytes, chain_id: bytes, check: Verify = verify_signature) -> None:
    """Check an evidence against the key that the accused had in its epoch; raises unless it is proved.

    Uses nothing but the chain's own data, so that all nodes agree (pitfall: evidence judged by other data has
    halted chains).

    Raises:
        EvidenceError: it is of another chain.
        SignatureError: a signature is not the key's.
    """
    if evidence.first.chain_id != chain_id:
        raise EvidenceError(
            f"evidence of chain {evidence.first.chain_id.hex()[:16]}, not {chain_id.hex()[:16]}"
        )
    for statement in (evidence.first, evidence.second):
        check(key, statement.message(), statement.signature)


class Detector:
    """Remembers what each key signed at one height and finds contradictions. Statements must be verified.

    Keeps one statement for each key, kind and round; at most ``most`` for each key, the lowest rounds being
    forgotten first.
    """

    def __init__(self, most: int = 1 << 8) -> None:
        self._most = most
        self._seen: dict[bytes, dict[tuple[Kind, int], SignedStatement]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def knows(self, key: bytes, kind: Kind, round: int, body: bytes) -> bool:
        """Whether it has seen this very statement, so that there is no need to verify it again."""
        seen = self._seen.get(key, {}).get((kind, round))
        return seen is not None and seen.body == body

    def observe(self, key: bytes, statement: SignedStatement) -> list[Evidence]:
        """Everything seen before that a statement contradicts."""
        mine = self._seen.setdefault(key, {})
        slot = (statement.kind, statement.round)
        before = mine.get(slot)
        if before is not None:
            if before.body == statement.body:
                return []
            return [] if conflict(before, statement) is None else [Evidence.of(before, statement)]
        mine[slot] = statement
        if len(mine) > self._most:
            del mine[min(mine, key=lambda kind_round: kind_round[1])]
        if statement.kind not in (Kind.COMMIT, Kind.TIMEOUT):
            return []
        opposite = Kind.TIMEOUT if statement.kind is Kind.COMMIT else Kind.COMMIT
        others = (other for other in mine.values() if other.kind is opposite)
        return [Evidence.of(other, statement) for other in others if conflict(other, statement) is not None]
