"""Robust averages of vectors, some of which may be anything: rules, steps before them, and attacks."""

from __future__ import annotations

from pydec.aggregate import before, caf, centred_clipping, coordinates, diameter, geometric_median, krum
from pydec.aggregate.base import Aggregator, PreAggregator, aggregators, preaggregators
from pydec.aggregate.inputs import Inputs
from pydec.aggregate.pipeline import Pipeline, make
from pydec.aggregate.screen import Counts, Screen

__all__ = [
    "Aggregator",
    "Counts",
    "Inputs",
    "Pipeline",
    "PreAggregator",
    "Screen",
    "aggregators",
    "before",
    "caf",
    "centred_clipping",
    "coordinates",
    "diameter",
    "geometric_median",
    "krum",
    "make",
    "preaggregators",
]
