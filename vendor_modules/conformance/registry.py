"""Checks: named functions with a contract in one sentence, and the capabilities that they need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vendor_modules.conformance.bench import Bench
from vendor_modules.module import HttpSettings, VendorModule

Function = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True)
class Check:
    """One check. ``contract`` is what must hold, in one sentence; ``wire`` says that it puts faults between the module
    and its provider, which takes a module that speaks HTTP and can be sent through a proxy."""

    name: str
    contract: str
    needs: tuple[type[VendorModule], ...]
    function: Function
    wire: bool = False
    family: tuple[str, str] | None = None
    """Of one that is there for every kind of resource, or for every operation: name and contract of all of them."""

    topic: str = ""
    """The module of this package that the check is in."""

    def __str__(self) -> str:
        return self.name

    def applies_to(self, module: type[VendorModule]) -> bool:
        """Whether the module has all that the check needs."""
        return all(issubclass(module, need) for need in self.needs) and not (self.wire and not speaks_http(module))


CHECKS: list[Check] = []
"""All checks, in the order in which they run: the simple first."""


def words(function: Callable[..., object]) -> str:
    """The function's docstring in one line."""
    return " ".join((function.__doc__ or "").split())


def speaks_http(module: type[VendorModule]) -> bool:
    """Whether the module's settings have a proxy."""
    return issubclass(module.Settings, HttpSettings)


def check(
    *needs: type[VendorModule], wire: bool = False, family: tuple[str, str] | None = None
) -> Callable[[Function], Function]:
    """Register a function as a check of the core, or of modules that have all the capabilities given. Its name is the
    check's, with hyphens; its docstring is the contract."""

    def register(function: Function) -> Function:
        contract = words(function)
        name = function.__name__.replace("_", "-")
        CHECKS.append(Check(name, contract, needs or (VendorModule,), function, wire, family, function.__module__))
        return function

    return register
