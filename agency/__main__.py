"""``python -m agency``: the command line."""

from agency.cli import main

main()
