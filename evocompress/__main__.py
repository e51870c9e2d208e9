"""`python -m evocompress` is the command `evocompress`."""

from evocompress.cli import main

main()
