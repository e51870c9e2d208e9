"""What produces every number that the README quotes: `python -m benchmarks` runs all, `-m benchmarks.NAME` one."""
