"""Everything of the ledger that is read from peers and disks, fed with mutants of what is valid.

The corpus grows by what it finds: a mutant whose error says something new got further into a decoder, and is
mutated in turn. Seeds are fixed, so a failure comes back; ``-m slow`` runs some thirty times as many.
"""

from __future__ import annotations

import dataclasses
import random
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pydec.consensus import light, messages, offers
from pydec.consensus.block import Block
from pydec.consensus.certificate import QuorumCertificate, TimeoutCertificate
from pydec.consensus.evidence import Evidence
from pydec.consensus.genesis import Genesis
from pydec.consensus.handover import Certified
from pydec.consensus.ledger_file import LedgerFile
from pydec.consensus.record import SafetyRecord
from pydec.consensus.safety_file import SafetyFile
from pydec.consensus.signed import Kind
from pydec.consensus.state import snapshot
from pydec.consensus.transactions import (
    Body,
    Config,
    Dataset,
    Grant,
    Join,
    Leave,
    Transaction,
    Transfer,
    prove,
    sign,
)
from pydec.consensus.validators import ValidatorTable
from pydec.errors import FrameError, LedgerError

from .samples import CHAIN, quorum_certificate, statement
from .test_messages import BLOCK, KEYS, QC, TABLE, TC
from .test_messages import SAMPLES as MESSAGES
from .test_transactions import BODIES
from .world import BOTH, World, account, genesis, key

CASES = 3000  # of each decoder in the usual run
EDGES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    (1 << 62) - 1,
    1 << 62,
)
CALLS_PER_BYTE, CALLS = 16, 2000
BYTES_PER_BYTE, BYTES = 64, 1 << 16


@dataclass(frozen=True)
class Decoder:
    """One decoder, its encoder, and valid bytes."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    seeds: list[bytes]


def chain() -> World:
    """A few blocks that fill every part of the state."""
    world = World(
        genesis(*(account(name, 31 if name == "a" else BOTH, balance=300) for name in "abcdef"), f="1")
    )
    world.run("a", Transfer(key("x").public, 100))
    world.run("x", Join(BOTH, 100, "at:x"))
    world.run("a", Dataset(b"d" * 32, "digits", 2, 0, 1))
    world.run("a", Grant(key("b").public, 0, b"d" * 32, 0, b"wrapped"))
    world.run("d", Leave())
    world.run("a", Config((("topology", "ring"),)))
    return world


def safety_record() -> SafetyRecord:
    """A record with every field in use."""
    record = SafetyRecord(CHAIN, 0, 1, high=QC, justification=QC, ended=TC)
    of_height_1 = [m for m in MESSAGES if getattr(m, "height", 0) == 1]
    by_type = {type(message): messages.encode(message, CHAIN) for message in of_height_1}
    record.proposal, record.prepare = by_type[messages.Proposal], by_type[messages.Vote]
    record.timeout = by_type[messages.Timeout]
    record.blocks = {b"h" * 32: BLOCK, b"g" * 32: BLOCK}
    return record


def signed(body: Body) -> bytes:
    """A transaction with that body, signed if it needs it."""
    return prove(body) if Transaction(body).proven else sign(key("a"), CHAIN, 7, body)


def decoders() -> dict[str, Decoder]:
    """By name. Seeds are as short as they can be: what matters is structure."""
    world = chain()
    steps = [
        light.EpochStep(block.header, commit, world.state.table)
        for block, commit in world.blocks[:2]
    ]  # fmt: skip
    commits = [quorum_certificate(KEYS, TABLE, [0, 1, 2], kind=kind) for kind in (Kind.PREPARE, Kind.COMMIT)]
    evidence = Evidence.of(*(statement(KEYS[0], Kind.COMMIT, 0, body * 32) for body in (b"a", b"b")))
    plain = Decoder
    return {
        "message": plain(
            lambda data: messages.decode(data, CHAIN),
            lambda value: messages.encode(value, CHAIN),
            [messages.encode(message, CHAIN) for message in MESSAGES],
        ),
        "transaction": plain(
            Transaction.decode,
            Transaction.encode,
[signed(body) for body in BODIES],
        ),
        "block": plain(Block.decode, Block.encode, [BLOCK, *(block.encode() for block, _ in world.blocks)]),
        "quorum certificate": plain(
            QuorumCertificate.decode, QuorumCertificate.encode, [commit.encode() for commit in commits]
        ),
        "timeout certificate": plain(TimeoutCertificate.decode, TimeoutCertificate.encode, [TC.encode()]),
        "validator table": plain(
            ValidatorTable.decode, ValidatorTable.encode, [TABLE.encode(), world.state.table.encode()]
        ),
        "evidence": plain(Evidence.decode, Evidence.encode, [evidence.encode()]),
        "genesis": plain(Genesis.decode, Genesis.encode, [world.genesis.encode()]),
        "snapshot": plain(
            lambda data: snapshot.decode(data, world.chain_id),
            snapshot.encode,
            [snapshot.encode(world.state), snapshot.encode(world.genesis.state())],
        ),
        "epoch step": plain(light.decode_step, light.encode_step, list(map(light.encode_step, steps))),
        "message about snapshots": plain(
            lambda data: offers.decode(data, world.chain_id),
            lambda value: offers.encode(value, world.chain_id),
            [offers.encode(message, world.chain_id) for message in offered(world)],
        ),
        "safety record": plain(
            lambda data: SafetyRecord.decode(data, CHAIN),
            SafetyRecord.encode,
            [SafetyRecord(CHAIN, 0, 1).encode(), safety_record().encode()],
        ),
    }  # fmt: skip


def offered(world: World) -> list[offers.Message]:
    """One message of each type, and a short one of each that can be."""
    (block, commit), table = world.blocks[1], world.state.table
    offer = Certified(block.header, commit, world.state).offer
    step = light.encode_step(light.EpochStep(block.header, commit, table))
    return [
        offers.Ask(3), offers.Step(step), offers.Step(b""), offers.AskProof(7), offer.proof, offer,
        offers.AskPieces(8, 1), offers.Piece(8, 1, b"piece"), offers.Piece(8, 0, b""),
    ]  # fmt: skip


DECODERS = decoders()


def mutant(rng: random.Random, corpus: list[bytes]) -> bytes:
    """One to three changes of a member of the corpus; sometimes bytes that never were one."""
    if not rng.randrange(50):
        return rng.randbytes(rng.randrange(200))
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 2, 4, 8, 32, 64)), len(data) - at)
        change = rng.randrange(7)
        if change == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif change == 1:
            n_bytes = rng.choice((1, 2, 4, 8))
            data[at : at + n_bytes] = (rng.choice(EDGES) % (1 << 8 * n_bytes)).to_bytes(n_bytes, "big")
        elif change == 2:
            del data[at : at + length]
        elif change == 3:
            data[at:at] = data[at : at + length]  # twice: an element of a list, for one
        elif change == 4:
            other = rng.choice(corpus)
            data[at:] = other[rng.randrange(len(other) + 1) :]
        elif change == 5 and length:
            start = rng.randrange(len(data) - length + 1)
            data[at : at + length] = data[start : start + length]  # the same key or count once more
        else:
            del data[at:]
    return bytes(data)


def bounded(decoder: Decoder, data: bytes) -> Any:
    """What the bytes are; asserts what reading them took, in calls and bytes, which load cannot change."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    tracemalloc.start()
    sys.setprofile(count)
    try:
        return decoder.decode(data)
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert calls <= CALLS_PER_BYTE * len(data) + CALLS, f"{calls} calls for {len(data)} bytes"
        assert peak <= BYTES_PER_BYTE * len(data) + BYTES, f"{peak} bytes for {len(data)} bytes"


def afresh(value: Any) -> Any:
    """A value made again of its fields alone: some remember the bytes that they were read from."""
    if isinstance(value, tuple):
        return tuple(map(afresh, value))
    if not dataclasses.is_dataclass(value):
        return value
    parts = {part.name: afresh(getattr(value, part.name)) for part in dataclasses.fields(value) if part.init}
    return dataclasses.replace(value, **parts)


def fuzz(decoder: Decoder, cases: int, seed: int) -> int:
    """Try so many mutants; how many were read as something."""
    rng, corpus, said, accepted = random.Random(seed), list(decoder.seeds), set[str](), 0
    for number in range(cases):
        data = mutant(rng, corpus)
        try:
            value = bounded(decoder, data) if number % 8 == 0 else decoder.decode(data)
        except FrameError as error:
            shape = re.sub(r"[0-9a-f]{6,}|\d+", "#", str(error))[:80]
            if shape not in said and len(data) < 1 << 14:
                said.add(shape)
                corpus.append(data)
            continue
        assert decoder.encode(afresh(value)) == data, f"{data.hex()} is a second encoding of {value!r}"
        accepted += 1
    return accepted


@pytest.mark.parametrize("name", DECODERS)
def test_seeds_are_read_within_the_bounds(name):
    for seed in DECODERS[name].seeds:
        value = bounded(DECODERS[name], seed)
        assert DECODERS[name].encode(value) == DECODERS[name].encode(afresh(value)) == seed


@pytest.mark.parametrize("name", DECODERS)
def test_mutants_are_values_of_one_encoding_or_frame_errors(name):
    fuzz(DECODERS[name], CASES, seed=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DECODERS)
def test_many_mutants_are_values_of_one_encoding_or_frame_errors(name, seed):
    fuzz(DECODERS[name], 10 * CASES, seed=seed)


def test_a_safety_record_names_each_block_once():
    record = safety_record().encode()
    with pytest.raises(FrameError, match="twice"):
        SafetyRecord.decode(record.replace(b"g" * 32, b"h" * 32), CHAIN)


# ---------------------------------------------------------------- files


def mutants_of(path: Path, cases: int) -> Iterator[None]:
    """Put mutants of a file in its place, one after the other."""
    rng, whole = random.Random(7), path.read_bytes()
    for _ in range(cases):
        path.write_bytes(mutant(rng, [whole]))
        yield


def test_a_damaged_ledger_file_gives_a_true_beginning_or_an_error(tmp_path):
    path, payloads = tmp_path / "blocks", [b"one", b"", b"three" * 40]
    with LedgerFile(path, CHAIN) as file:
        for height, payload in enumerate(payloads, 1):
            file.append(height, payload)
    for _ in mutants_of(path, CASES // 10):
        try:
            with LedgerFile(path, CHAIN, write=False) as file:
                found = [payload for _, payload in file.records()]
        except LedgerError:
            continue
        assert found == payloads[: len(found)]


def test_a_damaged_safety_file_gives_one_of_its_records_or_an_error(tmp_path):
    path, records = tmp_path / "key.safety", [b"old" * 300, b"new" * 300]
    with SafetyFile(path, b"k" * 32) as file:
        for record in records:
            file.persist(record)
    for _ in mutants_of(path, CASES // 30):
        try:
            with SafetyFile(path, b"k" * 32) as file:
                assert file.record in (None, *records)
        except LedgerError:
            continue
