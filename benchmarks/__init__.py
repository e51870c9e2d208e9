"""Benchmarks, for every number of docs/measured.md: `python -m benchmarks` runs all, `-m benchmarks.NAME` one."""
