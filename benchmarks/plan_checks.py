"""Plans beside runs: step time and bytes as ``pydec plan`` predicts them, and of hosts with shaped links."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydec.simulate.network import link
from pydec.simulate.plan import Job, plan
from pydec.simulate.plan_costs import BUFFER, FRAMING, allreduce_s

from .harness import Options, Row
from .jobs import measured
from .netlab.lab import Lab, missing
from .netlab.lab import Link as Shaped

ELEMENTS = 4_000_000
PAUSE_S = 0.2
RATES = ("100mbit", "300mbit", "1gbit")
HOSTS = (4, 8)
FLAGS = ("--mca", "btl_tcp_sndbuf", str(BUFFER))
"""The consent to a partner's packet waits behind what the system has buffered of the own ones on the
connections that share the link; see ``plan_costs.consent_s``. The system's own buffers grow to whole packets,
and ranks that exchange packets take turns: up to twice as long. With small ones what is left waits for the
sender's next call, so that only methods are here that send in the background."""
ALLOWED = 15.0
"""Percent that a prediction may be off."""
GOSSIP: dict[str, dict[str, Any]] = {
    "float32, sent during the gradient": {"algorithm": "dpsgd:order=cta", "compressor": "none"},
    "int8, sent during the gradient": {"algorithm": "dpsgd:order=cta", "compressor": "int8"},
    "int8, 4 local steps": {"algorithm": "dpsgd:order=cta", "compressor": "int8", "local_steps": 4},
    "two neighbours, bf16": {"algorithm": "dpsgd:order=cta", "compressor": "bf16", "topology": "ring"},
}
REDUCED = "all-reduce"


def rows(options: Options) -> Iterator[Row]:
    """Runs at 4 and 8 hosts and three rates, and how far predictions are off; says why not without hosts."""
    if (reason := missing()) is not None:
        print(f"predicted against measured left out: {reason}", file=sys.stderr)
        return
    rates = (options.net,) if options.net else RATES[1:2] if options.quick else RATES
    off: list[float] = []
    for hosts in HOSTS[:1] if options.quick else HOSTS:
        for rate in rates:
            for row in compared(hosts, rate, options):
                off.append(abs(row.params["off_percent"]))
                yield row
    params = {"predictions": len(off), "rates": list(rates), "mean_percent": round(sum(off) / len(off), 1)}
    worst = max(off)
    yield Row("scaling", "worst prediction", params, worst, "% off", "allowed", ALLOWED, ALLOWED / worst)


def compared(hosts: int, rate: str, options: Options) -> Iterator[Row]:
    """One lab's rows: each method's step and bytes as measured, beside the plan's."""
    rounds, groups = (1, 2) if options.quick else (options.rounds or 1, 4)
    methods: dict[str, Any] = {"alone": None}
    methods |= {name: _options(given) for name, given in GOSSIP.items()}
    methods[REDUCED] = {"algorithm": "allreduce"}
    with Lab([Shaped(rate)] * hosts) as lab:
        found = measured(
            lab, "plan_step.py", json.dumps(methods), ELEMENTS, PAUSE_S, rounds, groups, flags=FLAGS
        )
    alone_s = found["alone"]["step_s"]
    lines = link(rate)
    params = {"hosts": hosts, "net": rate, "megabytes": 4e-6 * ELEMENTS, "alone_ms": round(1e3 * alone_s, 1)}
    for name, given in GOSSIP.items():
        job = Job(ELEMENTS, hosts, lines, alone_s, **{"local_steps": 1, **given})
        costs = plan(job).costs
        yield from _pair(name, params, found[name], costs.step_s, FRAMING * costs.sent)
    whole = 4.0 * ELEMENTS
    sent = 2 * (hosts - 1) / hosts * whole
    took_s = alone_s + allreduce_s(whole, hosts, lines)  # pydec's own hides behind nothing
    yield from _pair(REDUCED, params, found[REDUCED], took_s, FRAMING * sent)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    background = "cta" in given["algorithm"]
    return {"topology": "one-peer-exponential", "background": background, **given}


def _pair(
    name: str, params: Mapping[str, Any], found: Mapping[str, float], step_s: float, n_bytes: float
) -> Iterator[Row]:
    for what, unit, measured_, predicted in (
        ("step", "ms", 1e3 * found["step_s"], 1e3 * step_s),
        ("bytes a step", "MB", 1e-6 * found["bytes"], 1e-6 * n_bytes),
    ):
        facts = {**params, "off_percent": round(100 * (predicted / measured_ - 1), 1)}
        yield Row("scaling", f"{what}: {name}", facts, measured_, unit, "predicted", predicted)
