"""Benchmarks of pydec. `harness.py` says how to add a suite; `pydec bench SUITE` runs one.

`pytest benchmarks` runs the bench_*.py files, which time single functions on every instruction set.
"""
