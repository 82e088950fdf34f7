"""Who would sit in a committee that the ledger's present epoch draws, and how safe that would be?"""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.consensus.replay import Replay

SEATS, FAULTY = 64, 0.1


def say(args: argparse.Namespace, replay: Replay) -> int:
    """Print the committee that the epoch's seed draws from its validators, by stake.

    Raises:
        ConfigError: seats or a share that cannot be.
    """
    seats = SEATS if args.seats is None else args.seats
    told = committee(replay, seats, FAULTY if args.faulty is None else args.faulty)
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    print(f"{'epoch':<14}{told['epoch']}, seed {told['seed'][:16]}")
    print(f"{'seats':<14}{told['held']} of {told['stake']} units of stake, {len(told['members'])} validators")
    print(f"{'unsafe':<14}{_odds(told['log10_unsafe'])}, if {told['faulty']:.0%} of the stake is faulty")
    print(f"{'':<14}{_odds(told['log10_unsafe_chosen'])}, if a proposer took the worst of 2^20 seeds")
    print(f"\n{'node':<18}{'stake':>12}{'seats':>8}")
    for member in told["members"]:
        print(f"{member['node_id'][:16]:<18}{member['stake']:>12}{member['seats']:>8}")
    return 0


def committee(replay: Replay, seats: int, faulty: float) -> dict[str, Any]:
    """The committee and its odds, as JSON can say them; null where it cannot be unsafe."""
    from pydec.consensus.committee import draw, log_unsafe, log_unsafe_ever
    from pydec.consensus.epochs import view_of

    if not 0 <= faulty < 1 / 3:
        raise ConfigError(f"--faulty must be in [0, 1/3), got {faulty}")
    state = replay.state
    seed = view_of(state, replay.head, lambda account: None).seed
    table, all_of = state.table, state.table.total
    drawn = draw(table.epoch, table.validators, seed, seats)
    bad = math.floor(faulty * all_of)
    stakes = {validator.node_id: validator.stake for validator in table.validators}
    return {
        "epoch": table.epoch,
        "seed": f"{seed:064x}",
        "seats": seats,
        "held": drawn.total,
        "stake": all_of,
        "faulty": faulty,
        "log10_unsafe": _log10(log_unsafe(all_of, bad, seats)),
        "log10_unsafe_chosen": _log10(
            log_unsafe_ever(all_of, bad, seats) if all_of > seats else log_unsafe(all_of, bad, seats)
        ),
        "members": [
            {"node_id": one.node_id.hex(), "stake": stakes[one.node_id], "seats": one.stake}
            for one in drawn.validators
        ],
    }


def _log10(natural: float) -> float | None:
    return natural / math.log(10) if math.isfinite(natural) else None


def _odds(log10: float | None) -> str:
    if log10 is None:
        return "never"
    return "nothing is promised" if log10 == 0 else f"with probability {10**log10:.2g}"
