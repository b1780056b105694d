"""Checks: named functions with a contract in one sentence, and the capabilities that they need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vendor_modules.conformance.bench import Bench
from vendor_modules.module import VendorModule

Function = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True)
class Check:
    """One check. ``contract`` is what must hold, in one sentence."""

    name: str
    contract: str
    needs: tuple[type[VendorModule], ...]
    function: Function

    def __str__(self) -> str:
        return self.name

    def applies_to(self, module: type[VendorModule]) -> bool:
        """Whether the module has all that the check needs."""
        return (
            issubclass(module, self.needs) if len(self.needs) == 1 else all(issubclass(module, n) for n in self.needs)
        )


CHECKS: list[Check] = []
"""All checks, in the order in which they run: the simple first."""


def check(*needs: type[VendorModule]) -> Callable[[Function], Function]:
    """Register a function as a check of the core, or of modules that have all the capabilities given. Its name is the
    check's, with hyphens; its docstring is the contract."""

    def register(function: Function) -> Function:
        contract = " ".join((function.__doc__ or "").split())
        CHECKS.append(Check(function.__name__.replace("_", "-"), contract, needs or (VendorModule,), function))
        return function

    return register
