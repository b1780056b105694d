"""``python -m tests.labs.openstack up|down|status STATE``: a lab to develop against, which outlives this command.

Tests use it when AGENCY_TEST_OPENSTACK names its clouds.yaml.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.labs.openstack.installation import missing
from tests.labs.openstack.lab import Lab


def main() -> None:
    """Do what is asked."""
    what, state = sys.argv[1:]
    if reason := missing():
        raise SystemExit(reason)
    lab = Lab(Path(state))
    if what == "up":
        print(lab.start())  # noqa: T201
    elif what == "down":
        lab.stop()
    else:
        for name in lab.processes.names():
            print(f"{name:30} {lab.processes.alive(name) or 'ended'}")  # noqa: T201


if __name__ == "__main__":
    main()
