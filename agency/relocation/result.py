"""What comes of an operation: outputs, or a failure and what was undone."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from agency.relocation.workshop import Output
from descriptors.messages import Problem


class UndoRank(IntEnum):
    """When a task is undone. The service comes back before anything is tidied, and never while it runs elsewhere."""

    FENCE = 0
    """Puts an end to what could become a second primary."""
    RESTORE = 1
    """Brings the service back where it was."""
    TIDY = 2
    """Removes what was made."""


class Undone(BaseModel):
    """What came of undoing one task: when it ended, and the problem if it could not be undone."""

    model_config = ConfigDict(frozen=True)

    task: str
    rank: UndoRank
    ended: float
    problem: Problem | None = None


class Result(BaseModel):
    """What came of an operation."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["done", "failed", "cancelled"]
    """All done; or failed, or cancelled, and undone."""
    outputs: dict[str, Output]
    failed_task: str | None = None
    problem: Problem | None = None
    undone: tuple[Undone, ...] = ()
    started: float
    ended: float

    @property
    def problems(self) -> list[Problem]:
        """What went wrong, and then what could not be undone yet."""
        found = [self.problem, *(undone.problem for undone in self.undone)]
        return [problem for problem in found if problem]
