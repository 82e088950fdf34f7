"""Benchmarks of pydec. `harness.py` says how to add a suite; `pydec bench SUITE` runs one;
`python -m benchmarks.publish` makes tables and plots of what --json wrote into results/.

`pytest benchmarks` runs the bench_*.py files, which time single functions on every instruction set.
"""
