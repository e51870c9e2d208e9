"""What produces every number that docs/measured.md quotes: `python -m benchmarks` runs all, `-m benchmarks.NAME` one."""
