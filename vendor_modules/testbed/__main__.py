"""``python -m vendor_modules.testbed serve --state DIR [--config -|FILE] [--follow-parent]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vendor_modules.testbed.serve import CannotStart, serve


def main() -> None:
    """Run a cloud; what keeps it from starting is said on stderr, with exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m vendor_modules.testbed", description="A small cloud on this desk.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("serve", help="run a cloud until SIGTERM")
    command.add_argument("--state", type=Path, required=True, help="the directory that holds all that the cloud is")
    command.add_argument("--config", help="a JSON file, or - for stdin; needed at the first start")
    command.add_argument("--follow-parent", action="store_true", help="end when the process that started it ends")
    options = parser.parse_args()
    try:
        text = None
        if options.config:
            text = sys.stdin.read() if options.config == "-" else Path(options.config).read_text()
        serve(options.state, text, follow_parent=options.follow_parent)
    except (CannotStart, OSError) as error:
        sys.exit(f"the cloud cannot start: {error}")


if __name__ == "__main__":
    main()
