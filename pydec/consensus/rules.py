"""The chain's rules: numbers that genesis fixes, some of which an admin may change by CONFIG."""

from __future__ import annotations

from dataclasses import dataclass

from pydec.codec import fields
from pydec.consensus.puzzle import MAX_TARGET, PUZZLES

ADMISSIONS = ("pow", "stake", "invite")


@dataclass(frozen=True)
class Rules:
    """How members come, go and are judged. All integers, so that every node computes the same.

    Args:
        admission: how JOIN is paid for: ``pow`` by a solved puzzle, ``stake`` by bonding from a balance,
            ``invite`` by a role that an admin granted before.
        puzzle: kind of the puzzle.
        target: first target of the puzzle; then retargeted.
        joins_per_period, period_blocks: the rate of joins that retargeting aims at.
        recent_blocks: how old, in blocks, the block may be that a solution is bound to.
        min_stake: least stake of a validator; what ``pow`` and ``invite`` bring in.
        churn_tenths: stake that one epoch may add plus remove stays below this many tenths of the total. One
            change alone always passes: among four equal validators any change moves at least a fifth.
        cap_percent: a node may not raise its own share above this percentage, in [1, 33]. A stake no larger
            than the smallest other one always passes: the third of three equals has a third whatever the cap.
        evidence_blocks: for how many blocks after its last one a table is kept, evidence against its members
            is taken, and stake that left it stays locked. Blocks, not epochs: any validator can begin an
            epoch with every block, and so let another's guilt expire.
        downtime_blocks: blocks over which absence is counted, in [8, 64].
        margin_rounds: training rounds between a committed change and its effect.
        evidence_bytes: most bytes of evidence in a block.
        transaction_bytes: most bytes of one transaction.
    """

    admission: str = "stake"
    puzzle: str = "sha256"
    target: int = MAX_TARGET >> 20
    joins_per_period: int = 4
    period_blocks: int = 64
    recent_blocks: int = 64
    min_stake: int = 1
    churn_tenths: int = 1
    cap_percent: int = 25
    evidence_blocks: int = 1024
    downtime_blocks: int = 32
    margin_rounds: int = 50
    evidence_bytes: int = 1 << 16
    transaction_bytes: int = 1 << 17

    def __post_init__(self) -> None:
        if self.admission not in ADMISSIONS:
            raise ValueError(f"unknown admission {self.admission!r}; known: {', '.join(ADMISSIONS)}")
        if self.puzzle not in PUZZLES:
            raise ValueError(f"unknown puzzle {self.puzzle!r}; known: {', '.join(PUZZLES)}")
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"rule {name} must be an integer in [{least}, {most}], got {value!r}")

    def encode(self) -> bytes:
        """Canonical bytes."""
        return RULES.encode(self)


_RANGES = (
    ("target", 1, MAX_TARGET),
    ("joins_per_period", 1, 1 << 16),
    ("period_blocks", 1, 1 << 16),
    ("recent_blocks", 1, 1 << 10),
    ("min_stake", 1, (1 << 62) - 1),
    ("churn_tenths", 1, 3),
    ("cap_percent", 1, 33),
    ("evidence_blocks", 1, 1 << 12),
    ("downtime_blocks", 8, 64),
    ("margin_rounds", 0, 1 << 32),
    ("evidence_bytes", 1 << 10, 1 << 19),
    ("transaction_bytes", 1 << 12, 1 << 19),
)
RULES = fields.record(
    Rules,
    admission=fields.text(8),
    puzzle=fields.text(8),
    **{name: fields.integer(32 if name == "target" else 8, least, most) for name, least, most in _RANGES},
)
