"""Two signed claims about one packet cost the stake, once; what proves nothing costs nobody anything."""

from __future__ import annotations

from dataclasses import replace

from pydec.consensus.equivocation import Equivocation
from pydec.consensus.transactions import NO_DIGEST, Begin, Join, prove
from pydec.crypto.claims import claim_bytes
from tests.consensus.test_membership import refused
from tests.consensus.world import BOTH, World, key


def claims(name: str, world: World, **changes) -> Equivocation:
    """Two claims of ``name`` about one packet of the world's run."""
    body = Equivocation(
        key(name).public, world.state.run.run_id, 1, 7, 0, bytes([1]) * 32, b"", bytes([2]) * 32, b""
    )
    body = replace(body, **changes)
    context = world.chain_id + body.run_id
    signatures = {
        f"{which}_signature": key(name).sign(
            claim_bytes(context, body.epoch, body.round, body.number, getattr(body, which))
        )
        for which in ("first", "second")
    }
    return replace(body, **{k: v for k, v in signatures.items() if k not in changes})


def test_who_signed_two_digests_of_one_packet_loses_its_stake_once():
    world = World()
    world.run("a", Begin(bytes([7]) * 32, bytes([8]) * 32))
    found = prove(claims("d", world))
    world.add(found)
    assert (world.of("d").slashed, world.of("d").roles, world.state.supply.burned) == (1, 0, 100)
    assert len(world.state.table) == 3
    refused(world, "has nothing left to lose", found)
    refused(world, "a key that has lost no stake by its own fault", world.tx("d", Join(BOTH, 0, "at:d")))


def test_claims_that_prove_nothing_are_refused():
    world = World()
    one, two = bytes([1]) * 32, bytes([2]) * 32
    none = claims("d", world, run_id=NO_DIGEST)
    refused(world, "are of run 0000000000000000", prove(none))
    world.run("a", Begin(bytes([7]) * 32, bytes([8]) * 32))
    other = claims("d", world, run_id=bytes([9]) * 32)
    refused(world, "are of run 0909090909090909, not 0707070707070707", prove(other))
    refused(world, "no two digests in their order", prove(claims("d", world, second=one)))
    refused(world, "no two digests in their order", prove(claims("d", world, first=two, second=one)))
    good = claims("d", world)
    refused(world, "no signature of key", prove(replace(good, node=key("c").public)))
    refused(world, "no signature of key", prove(replace(good, round=8)))
    refused(world, "no signature of key", prove(replace(good, number=1)))
    refused(world, "no signature of key", prove(replace(good, second_signature=good.first_signature)))
    refused(world, "knows no account", prove(claims("q", world)))
