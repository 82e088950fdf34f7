"""Give a running job more or fewer ranks: pydec scale +2.

Asks the pydec run of a training job on this machine. Newcomers join the running job, where its MPI allows it;
else, and for fewer ranks, its ranks write a checkpoint and leave, and the new number starts from it. Either
way they go on from the mean of the models, with the data that was not seen. With --ledger leavers leave it
and newcomers join. If the new number does not start, the old one goes on from the same step.

  pydec scale +2                    # two more
  pydec scale +2 --host node7:2     # two more, on another host
  pydec scale -2                    # two fewer
  pydec scale =6 --run-dir runs/x   # six, where several jobs run

With --ledger only an admin may: the request is signed by --key, or by the key of the job's first node of the
ledger on this machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("count", metavar="COUNT", help="+N more, -N fewer, or =N ranks")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run-dir", default="", metavar="DIR", help="the job of this run")
    which.add_argument("--pid", type=int, default=0, metavar="PID", help="the job of this pydec run")
    add("--host", default="", metavar="HOST:SLOTS,...", help="where more ranks can run")
    add(
        "--key",
        default="",
        metavar="SOURCE",
        help="an admin's key: a file, env:NAME or fd:NUMBER (of the node)",
    )
    add("--passphrase-from", default="", metavar="SOURCE", help="of the key file: env:NAME or fd:NUMBER")
    add("--oversubscribe", action="store_true", help="let hosts have more ranks than slots")


def run(args: argparse.Namespace) -> int:
    """Ask, wait, and return 0 when the new number of ranks has taken a step, 1 if it did not start.

    Raises:
        ConfigError: no such job, several, or it refuses.
        SetupError: it ends without an answer.
    """
    import json
    from dataclasses import asdict

    from pydec.consensus.file_storage import KEY_FILE
    from pydec.crypto.keyfile import from_source, secret_from
    from pydec.launch.door import ask, find
    from pydec.launch.permit import prove  # the job does not wait for long
    from pydec.launch.scale import Request

    request = Request(args.count, args.host, args.oversubscribe)
    line = json.dumps({**asdict(request)})

    def proof(challenge: dict[str, Any]) -> dict[str, str]:
        phrase = secret_from(args.passphrase_from) if args.passphrase_from else None
        key = from_source(args.key or str(Path(challenge["node"]) / KEY_FILE), phrase)
        return prove(challenge, line, key)

    done = ask(find(args.run_dir, args.pid), line, lambda words: print(words, flush=True), proof)
    return 0 if done else 1
