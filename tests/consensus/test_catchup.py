from __future__ import annotations

from pydec.consensus.catchup import ANSWERS, MOST_CLAIMS, WINDOW, Allowance, Bar, CatchUp

from .samples import keys_and_table

KEYS, TABLE = keys_and_table([1] * 4)


def test_one_request_at_a_time_and_whoever_does_not_deliver_loses_its_claim():
    catch_up = CatchUp()
    assert not catch_up.heard(b"behind", 4, height=5)
    assert catch_up.heard(b"liar", 1 << 60, height=5)
    assert catch_up.ask(5) == b"liar"
    assert catch_up.until == 5 + WINDOW - 1
    assert not catch_up.heard(b"honest", 9, height=5)
    catch_up.fail()
    assert catch_up.ask(5) == b"honest"
    assert catch_up.until == 9
    assert not catch_up.delivered(9)
    assert catch_up.delivered(10)
    assert catch_up.ask(10) is None


def test_the_banned_are_not_asked_again():
    catch_up = CatchUp()
    catch_up.heard(b"liar", 9, height=5)
    catch_up.ask(5)
    catch_up.ban(b"liar")
    assert catch_up.banned(b"liar")
    assert not catch_up.heard(b"liar", 9, height=5)
    assert catch_up.ask(5) is None


def test_claims_are_bounded():
    catch_up = CatchUp()
    for k in range(3 * MOST_CLAIMS):
        catch_up.heard(k.to_bytes(32, "big"), 9, height=5)
        catch_up.ban((1 << 200 | k).to_bytes(32, "big"))
    assert len(catch_up) <= 2 * MOST_CLAIMS


def test_answers_are_rationed_for_each_node():
    allowance = Allowance()
    assert sum(allowance.take(b"a") for _ in range(100)) == ANSWERS
    assert allowance.take(b"b")
    allowance.refill()
    assert allowance.take(b"a")


def test_a_lost_record_bars_two_heights_more_than_a_quorum_knows():
    """Counter-example to one: height 10 is open. Three nodes send COMMITs of it, and only this one gets them.

    It decides 10, leads 11 and proposes a block, and loses its disk. The others say 9; with 10 barred, it
    would propose another block at 11, and be slashed.
    """
    bar = Bar(lost=True)
    assert not bar.allows(1 << 60)
    bar.heard(TABLE, TABLE[0].node_id, 7)
    bar.heard(TABLE, TABLE[0].node_id, 9)  # once more is no second one
    bar.heard(TABLE, b"a stranger", 1 << 60)
    bar.heard(TABLE, TABLE[1].node_id, 8)
    assert bar.waiting
    bar.heard(TABLE, TABLE[2].node_id, 3)
    assert not bar.waiting
    assert [bar.allows(height) for height in (9, 10, 11, 12)] == [False, False, False, True]


def test_heads_of_an_epoch_that_is_over_do_not_lift_the_bar():
    """Counter-example: all but one have left at height 9 and follow no more; the chain is at 100 meanwhile.

    Their heads say 9. A node that replays from the start would vote at 12, and at 101, where its lost record
    may say something else.
    """
    bar = Bar(lost=True)
    for validator in TABLE.validators[:3]:
        bar.heard(TABLE, validator.node_id, 9)
    assert not bar.waiting
    assert not bar.entered(TABLE.epoch, 9)
    assert bar.entered(TABLE.epoch + 1, 10)  # height 9 changed the table: ask its members
    _, after = keys_and_table([1] * 7, TABLE.epoch + 1)
    for validator in after.validators[:5]:
        bar.heard(after, validator.node_id, 100)
    assert [bar.allows(height) for height in (102, 103)] == [False, True]
    assert not bar.entered(after.epoch, 103)
    assert not bar.entered(after.epoch + 1, 104)  # it is lifted for good
    assert bar.allows(104)


def test_without_a_loss_nothing_is_barred_but_what_the_record_says():
    bar = Bar(lost=False)
    assert bar.allows(1)
    bar.until(5)
    assert [bar.allows(height) for height in (5, 6)] == [False, True]
