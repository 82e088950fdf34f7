"""What would thousands of peers do, and how long would it take them?

Runs virtual peers in this process: the same graphs, compressors and algorithms as pydec train, with virtual
time for computation and links, peers that are slow, die, join and lie. Up to 16 peers have the bits of a run
of as many ranks. With --vectors nothing is learned, and gossip alone is simulated, up to 100,000 peers.

  pydec simulate --peers 4096 --topology base-k --algorithm choco --compressor topk:fraction=0.01 \\
      --task fashion-mnist-linear --churn 0.01 --stragglers lognormal:0.5 --byzantine 0.1 --link 100mbit,20ms
  pydec simulate --peers 100000 --vectors 1024 --topology one-peer-exponential
  pydec simulate --peers 256 --sweep topology ring base-k exponential --sweep churn 0 0.01 0.05 --out sweep
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydec.cli.values import count, positive
from pydec.errors import ConfigError, SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydec.simulate.run import Outcome
    from pydec.simulate.scenario import Scenario
    from pydec.simulate.sweep import Cell, Result

TASK = "fashion-mnist-linear"
_UNSWEPT = ("sweep", "out", "jobs", "json", "plot", "quiet", "memory", "help")
_COLUMNS = ("consensus_distance", "accuracy", "train_loss", "virtual_s", "bytes_sent", "finished", "wall_s")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("--peers", type=int, required=True, metavar="N", help="how many")
    add("--seed", type=int, default=0, metavar="N", help="decides everything random (0)")
    learn = parser.add_argument_group("what they do")
    learn.add_argument("--task", metavar="TASK", help=f"as of pydec train ({TASK})")
    learn.add_argument(
        "--vectors",
        type=count,
        metavar="D",
        help="no task: every peer has a vector of D numbers, and gossips",
    )
    learn.add_argument("--data", metavar="DIR", help="directory of the task's data")
    learn.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help="of every peer (the task's, at least 50; rounds with --vectors: 20)",
    )
    learn.add_argument("--epochs", type=positive, metavar="X", help="passes of every peer over its share")
    learn.add_argument("--batch-size", type=count, metavar="N", help="samples per peer and step")
    learn.add_argument(
        "--alpha", type=positive, metavar="A", help="split by label, Dirichlet(A); iid without it"
    )
    learn.add_argument("--optimizer", metavar="SPEC", help="sgd or adamw, with options: sgd:momentum=0.9")
    learn.add_argument("--lr", type=positive, metavar="X", help="peak learning rate")
    learn.add_argument("--schedule", choices=("constant", "cosine"), help="course of the learning rate")
    learn.add_argument("--clip-norm", type=positive, metavar="X", help="largest norm of a gradient")
    learn.add_argument(
        "--nan-policy", choices=("raise", "skip", "continue"), help="NaN in a gradient (raise)"
    )
    learn.add_argument(
        "--gradients",
        choices=("auto", "each", "batched"),
        default="auto",
        help="one by one, with the bits of pydec train, or all at once; auto: one by one up to 16 peers",
    )
    gossip = parser.add_argument_group("gossip")
    gossip.add_argument("--topology", metavar="SPEC", help="who talks to whom (one-peer-exponential)")
    gossip.add_argument("--compressor", metavar="SPEC", help="how models travel (int8; none for vectors)")
    gossip.add_argument("--algorithm", metavar="SPEC", help="how steps and averaging go together (dpsgd)")
    gossip.add_argument("--local-steps", type=count, metavar="H", help="local steps between rounds (1)")
    gossip.add_argument("--mixing", metavar="SPEC", help="rounds after a step: fixed:rounds=2 (fixed)")
    gossip.add_argument("--aggregate", metavar="SPEC", help="robust rule in place of an algorithm, or auto")
    world = parser.add_argument_group("the world")
    world.add_argument(
        "--link", default="", metavar="LINK", help="RATE or UP/DOWN,LATENCY,JITTER: 100mbit,20ms"
    )
    world.add_argument(
        "--step-time", metavar="TIME", help="what a local step takes: 50ms (100ms; 0s for vectors)"
    )
    world.add_argument(
        "--stragglers", default="none", metavar="SPEC", help="lognormal:0.5, speeds:0.5, slow:0.1,4 (none)"
    )
    world.add_argument(
        "--churn",
        default="",
        metavar="LEAVE[,JOIN]",
        help="chance to die in a step, and of a free place to be taken in the next era (0; 1)",
    )
    world.add_argument("--era", type=count, metavar="N", help="rounds between changes of the members (10)")
    world.add_argument("--detect", default="50ms", metavar="TIME", help="until a death is known (50ms)")
    world.add_argument(
        "--late", metavar="TIME", help="after which a round goes on without a neighbour (never)"
    )
    world.add_argument(
        "--byzantine", default="", metavar="SHARE|N|RANKS", help="who lies: 0.1 of the peers, 3, or 1,5"
    )
    world.add_argument("--attack", metavar="SPEC", help="what liars send; pydec list attacks (alie)")
    out = parser.add_argument_group("results")
    out.add_argument(
        "--log-every", type=count, metavar="N", help="steps between rows (a fiftieth of the run)"
    )
    out.add_argument("--eval-every", type=count, metavar="N", help="steps between evaluations (a fifth)")
    out.add_argument("--json", type=Path, metavar="FILE", help="write rows and summary to FILE")
    out.add_argument("--plot", type=Path, metavar="FILE", help="draw them as .png, .svg or .pdf")
    out.add_argument("--threads", type=count, metavar="N", help="of computations (all cores; 1 one by one)")
    out.add_argument("--memory", metavar="SIZE", help="refuse to take more, such as 4GB (what is free)")
    out.add_argument("--quiet", action="store_true", help="print nothing unless something fails")
    many = parser.add_argument_group("sweeps")
    many.add_argument(
        "--sweep",
        action="append",
        nargs="+",
        default=[],
        metavar=("OPTION", "VALUE"),
        help="every value of an option, such as topology ring base-k; with every value of other sweeps",
    )
    many.add_argument(
        "--out", type=Path, metavar="DIR", help="of a sweep: results, table.csv, pictures; goes on"
    )
    many.add_argument("--jobs", type=count, metavar="N", help="processes of a sweep (one for each core)")


def run(args: argparse.Namespace) -> int:
    """Simulate one scenario, or all of a sweep."""
    if args.sweep:
        return _sweep(args)
    if args.out or args.jobs:
        raise ConfigError(
            "--out and --jobs are of sweeps; add --sweep OPTION VALUE VALUE, or use --json FILE"
        )
    from pydec.simulate import plots
    from pydec.simulate.run import Simulation
    from pydec.train import display

    scenario = scenario_of(args)
    if args.plot:
        plots.check(args.plot)
    if args.json:
        _write(args.json, {})  # a path that cannot be written is found now, not after the simulation
    simulation = Simulation(scenario)
    steps = simulation.config.steps
    with display.make(f"{scenario.peers:,} peers", steps, quiet=args.quiet) as shown:
        shown.say(_opening(args, scenario, simulation.budget.words()))

        def show(row: Mapping[str, Any]) -> None:
            names = ("loss", "consensus_distance")
            shown.report(row["step"], {name: row[name] for name in names if name in row})
            shown.step(row["step"])

        outcome = simulation.run(show)
    if args.json:
        _write(args.json, {"summary": outcome.summary, "rows": outcome.rows})
    if args.plot:
        plots.curves({"": outcome.rows}, args.plot)
    if not args.quiet:
        print(_closing(outcome))
    return 0


def scenario_of(args: argparse.Namespace) -> Scenario:
    """The scenario that the words of the command line describe.

    Raises:
        ConfigError: a value out of range, an unknown name, or what does not go together.
    """
    from pydec.simulate.network import duration_s
    from pydec.simulate.scenario import MOST_PEERS, Scenario, liars_of
    from pydec.train.config import TrainConfig

    if not 1 <= args.peers <= MOST_PEERS:
        raise ConfigError(f"--peers must be in [1, {MOST_PEERS:,}], got {args.peers}")
    if args.vectors and args.task:
        raise ConfigError("--vectors has no task; leave --task out")
    names = (
        "data", "steps", "epochs", "batch_size", "alpha", "optimizer", "lr", "schedule", "clip_norm",
        "nan_policy", "topology", "compressor", "algorithm", "local_steps", "mixing", "aggregate", "attack",
        "log_every", "eval_every", "threads", "seed",
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    liars = liars_of(args.byzantine, args.peers)
    train = TrainConfig(args.task or TASK, byzantine=liars, **given)
    step = args.step_time or ("0s" if args.vectors else "100ms")
    return Scenario(
        args.peers,
        train,
        vectors=args.vectors or 0,
        link=args.link,
        step_s=duration_s(step, "--step-time"),
        stragglers=args.stragglers,
        churn=args.churn,
        era_rounds=args.era or 0,
        detect_s=duration_s(args.detect, "--detect"),
        late_s=duration_s(args.late, "--late") if args.late else 0.0,
        gradients=args.gradients,
        memory_bytes=_size(args.memory) if args.memory else 0,
    )


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """All scenarios of a sweep: every value of every swept option with every other.

    Raises:
        ConfigError: no such option, one without values, or a scenario that cannot be.
    """
    from pydec.cli.main import parser_of
    from pydec.simulate.sweep import Cell

    known = [name.replace("_", "-") for name in vars(args) if name not in (*_UNSWEPT, "run")]
    for name, *values in args.sweep:
        if name not in known:
            raise ConfigError(f"--sweep {name}: no such option; known: {', '.join(sorted(known))}")
        if not values:
            raise ConfigError(f"--sweep {name} needs values, such as --sweep {name} A B C")
    names = [name for name, *_ in args.sweep]
    if len({*names}) < len(names):
        raise ConfigError(f"--sweep names an option twice: {', '.join(names)}; give all its values at once")
    parser = parser_of("simulate")
    cells = []
    for choice in itertools.product(*(values for _, *values in args.sweep)):
        label = dict(zip(names, choice, strict=True))
        words = [f"--{name}={value}" for name, value in {"peers": str(args.peers), **label}.items()]
        try:
            cells.append(Cell(label, scenario_of(parser.parse_args(words, copy.copy(args)))))
        except ConfigError as error:
            raise ConfigError(f"sweep at {_labels(label)}: {error}") from None
    return cells


def _sweep(args: argparse.Namespace) -> int:
    import time

    from pydec.simulate import plots, sweep
    from pydec.train import display

    if args.json or args.plot:
        raise ConfigError("a sweep writes its table and pictures to --out DIR; leave --json and --plot out")
    cells = cells_of(args)
    folder = args.out or Path("runs") / f"simulate-{time.strftime('%Y%m%d-%H%M%S')}"
    drawn = folder / "curves.png"
    plots.check(drawn)
    with display.make("sweep", len(cells), quiet=args.quiet) as shown:
        shown.say(f"sweep           {len(cells)} scenarios, into {folder}")

        def show(done: int, result: Result | None) -> None:
            if result is not None and "error" in result.summary:
                shown.say(f"failed          {_labels(result.label)}: {result.summary['error']}")
            shown.report(done, {})
            shown.step(done)

        results = sweep.sweep(cells, folder, args.jobs or sweep.default_jobs(), show)
    rows = sweep.table(results, folder / "table.csv")
    plots.curves({_labels(result.label): result.rows for result in results}, drawn)
    for name, *_ in args.sweep:
        plots.against(results, name, folder / f"against-{name}.png")
    if not args.quiet:
        _show(rows, [name for name, *_ in args.sweep])
    failed = [result for result in results if "error" in result.summary]
    if failed:
        raise SetupError(
            f"{len(failed)} of {len(results)} scenarios failed, the first ({_labels(failed[0].label)}) with: "
            f"{failed[0].summary['error']}"
        )
    return 0


def _show(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = [*names, *(name for name in _COLUMNS if any(name in row for row in rows))]
    table = Table(*shown)
    for row in rows:
        table.add_row(*(_cell(row.get(name, "")) for name in shown))
    Console().print(table)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _labels(label: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in label.items())


def _opening(args: argparse.Namespace, scenario: Scenario, memory: str) -> str:
    lines = [f"memory          {memory}"]
    asked = scenario.train.algorithm
    if scenario.algorithm != asked and not scenario.vectors:
        lines.append(
            f"algorithm       {scenario.algorithm}: the form of {asked} for graphs that change, as "
            f"{scenario.plan.topology.name} does"
        )
    if scenario.liars:
        assert scenario.byzantine is not None
        lines.append(
            f"byzantine       {len(scenario.liars)} peers send {scenario.byzantine.spec}; an honest one "
            f"hears at most {scenario.byzantine.f}"
        )
        if not scenario.plan.algorithm.robust:
            lines.append(f"warning         {asked} bounds nothing of what liars do; --aggregate does")
    return "\n".join(lines)


def _closing(outcome: Outcome) -> str:
    found = outcome.summary
    lines = []
    if "accuracy" in found or "loss" in found:
        from pydec.train.summary import score_words

        lines.append(("averaged model", score_words(found)))
    lines.append(("apart", f"{found['consensus_distance']:.4g}, root mean square distance to the mean"))
    lines.append(
        (
            "sent",
            f"{found['bytes_sent'] / 1e6:.1f} MB, {found['bytes_sent'] / found['peers'] / 1e6:.3g} MB a peer",
        )
    )
    waited = f", {found['waited_s']:.4g} s of it waiting" if "waited_s" in found else ""
    lines.append(("virtual time", f"{found['virtual_s']:.4g} s for {found['steps']} steps{waited}"))
    if found.get("died") or found.get("joined"):
        lines.append(
            ("members", f"{found['died']} died, {found['joined']} joined, {found['finished']} finished")
        )
    if found.get("late"):
        lines.append(("late", f"{found['late']} packets that rounds went on without"))
    lines.append(
        ("time", f"{found['wall_s']:.1f} s, {found['steps'] / max(1e-9, found['wall_s']):.3g} steps/s")
    )
    return "\n".join(f"{label:<15} {words}" for label, words in lines)


def _size(word: str) -> int:
    units = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
    text = word.strip().lower()
    for unit, size in units.items():
        if text.endswith(unit):
            try:
                value = float(text.removesuffix(unit))
            except ValueError:
                break
            if 0 < value < float("inf"):
                return max(1, round(value * size))
    raise ConfigError(f"--memory must be a size such as 500MB or 4GB, got {word!r}")


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}; choose another --json FILE") from None
