"""Ours: `agency transfer push` at site ``a`` to `agency transfer serve` at site ``b``, as anybody would run them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from agency.transfer.identity import initialize
from benchmarks.transfer_lab.inputs import Content
from benchmarks.transfer_lab.measuring import Run
from benchmarks.transfer_lab.network import SITES, Site
from benchmarks.transfer_lab.peers import Contender

CONTROL_PORT, DATA_PORT = 7443, 7444
_TRANSFER = [sys.executable, "-m", "agency", "transfer"]


class Agency(Contender):
    """All contents at once, each with a token of its own, two streams each, compressing where it pays."""

    name = "agency"
    packages: ClassVar = {}
    options: ClassVar[list[str]] = []

    def serve(self, run: Run) -> None:
        authority = None
        for site in SITES:
            _state(run, site).mkdir(mode=0o700)
            folder, _ = initialize(_state(run, site), "benchmark", [run.way.address(site)], authority)
            authority = authority or folder
        where = ["--root", str(run.destination), "--listen", _control(run), "--data", str(DATA_PORT)]
        run.serve("b", [*_TRANSFER, "serve", *where, *_here(run, "b")], CONTROL_PORT)
        run.do("b", *(self._grant(run, content) for content in run.contents))

    def have(self, run: Run, earlier: Content) -> None:
        """It came by us, too, so its manifest is there."""
        run.do("b", self._grant(run, earlier))
        run.do("a", self._push(run, earlier))

    def copy(self, run: Run) -> None:
        run.do("a", *(self._push(run, content) for content in run.contents))

    def _grant(self, run: Run, content: Content) -> list[str]:
        """The command by which the destination issues a token for the content."""
        what = ["write", content.path.name, "--peer", run.way.address("a"), "--output", _token(run, content)]
        return [*_TRANSFER, "token", *what, *_here(run, "b")]

    def _push(self, run: Run, content: Content) -> list[str]:
        """The command that sends the content."""
        what = [str(content.path), _control(run), "--token-file", _token(run, content)]
        return [*_TRANSFER, "push", *what, *self.options, *_here(run, "a")]


class AgencyUncompressed(Agency):
    """The same, and never compresses."""

    name = "agency, no zstd"
    options: ClassVar = ["--no-compress"]


def _state(run: Run, site: Site) -> Path:
    return run.scratch / f"state-{site}"


def _token(run: Run, content: Content) -> str:
    return str(run.scratch / f"{content.digest}.token")


def _here(run: Run, site: Site) -> list[str]:
    return ["--state", str(_state(run, site))]


def _control(run: Run) -> str:
    return f"{run.way.address('b')}:{CONTROL_PORT}"
