"""Where things are kept. Imports nothing slow: every command asks."""

from __future__ import annotations

import os
from pathlib import Path

PRICES = "prices"
"""The folder of the price catalogue in the state directory."""


def default_state() -> Path:
    """``$XDG_STATE_HOME/cloud-agency``, by default ``~/.local/state/cloud-agency``."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "cloud-agency"
