"""What produces every number that the README quotes: `python -m benchmarks` runs all, `python -m benchmarks.NAME` one."""
