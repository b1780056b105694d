"""A machine's own manifest: what travels inside a *bundle* (a tar archive of a machine's working directory) so that the
machine starts the same way wherever the bundle is unpacked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

BUNDLE_MANIFEST = ".machine.json"
"""The bundle member that holds a :class:`MachineManifest` as JSON."""


class MachineManifest(BaseModel):
    """How a machine is started. Command lines are POSIX shell words; no shell is involved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    install: tuple[str, ...] = ()
    """Run once, in order, before the first start."""
    installed: bool = False
    """Whether :attr:`install` has run: true in the bundle of a machine that has started."""
    start: str | None = None
    """The service: runs in the foreground, listens on ``$PORT`` of ``$HOST``, ends on SIGTERM."""
