"""Runs the checks on a vendor, and reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vendor_modules.capabilities import CAPABILITIES, inventory
from vendor_modules.conformance.bench import Bench, CheckFailed
from vendor_modules.conformance.checks import CHECKS
from vendor_modules.conformance.lender import Lender
from vendor_modules.conformance.registry import Check, speaks_http
from vendor_modules.conformance.subject import Subject
from vendor_modules.errors import Unsupported, VendorError
from vendor_modules.module import VendorModule

Outcome = Literal["passed", "failed", "skipped"]
MISSING = "still to be written:"
LEAK_CHECK = "nothing-is-left-behind"
LEAK_CONTRACT = "After all checks, the account holds what it held before."


@dataclass(frozen=True)
class Result:
    """How one check ended. ``reason`` is empty for one that passed."""

    name: str
    contract: str
    outcome: Outcome
    reason: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """How all checks ended."""

    vendor: str
    checks: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(result.outcome != "failed" for result in self.checks)

    @property
    def missing(self) -> list[str]:
        """The methods that are still to be written: those that raise NotImplementedError with their name."""
        found = [r.reason.removeprefix(MISSING) for r in self.checks if r.reason.startswith(MISSING)]
        return list(dict.fromkeys(reason.partition(";")[0].strip() for reason in found))

    def to_json(self) -> dict[str, Any]:
        """``{"vendor": …, "checks": [{"name", "contract", "outcome", "reason", "seconds"}, …], "missing": […]}``."""
        checks = [asdict(result) for result in self.checks]
        return {"vendor": self.vendor, "checks": checks, "missing": self.missing}


def checks_for(module: type[VendorModule]) -> list[Check]:
    """The checks that apply to the module, by its capabilities."""
    return [check for check in CHECKS if check.applies_to(module)]


async def check_vendor(subject: Subject, on_result: Callable[[Result], object] = lambda _: None) -> Report:
    """Run all checks, one after the other; ``on_result`` is called with each result as it comes. One that fails stops
    none of the others."""
    results: list[Result] = []

    def note(result: Result) -> None:
        results.append(result)
        on_result(result)

    before, lender = await _held(subject), Lender(subject)
    try:
        for check in CHECKS:
            note(await run_check(check, subject, lender))
    finally:
        problems = await _closed(lender)  # when the run is cancelled too
    note(await _compare(subject, before, problems))
    return Report(subject.vendor, tuple(results))


async def run_check(check: Check, subject: Subject, lender: Lender | None = None) -> Result:
    """Run one check, and remove what it created; what cannot be removed makes it fail. Checks that are given the same
    ``lender`` share what is slow to make; close it when all are done. Without one, nothing is left either."""
    if lack := _lack(check, subject):
        return Result(check.name, check.contract, "skipped", lack, 0.0)
    started, own = time.monotonic(), lender or Lender(subject)
    try:
        outcome, reason = await _run(check, Bench(subject, own), own is not lender)
    except Exception as error:  # noqa: BLE001 - whatever a broken module raises is a result
        outcome, reason = "failed", f"the module cannot be made or closed: {error!r}"
    return Result(check.name, check.contract, outcome, reason, round(time.monotonic() - started, 3))


def _lack(check: Check, subject: Subject) -> str:
    if missing := [_name(need) for need in check.needs if not issubclass(subject.module, need)]:
        return f"the module has no {', '.join(missing)}"
    if check.wire and not speaks_http(subject.module):
        return "the module does not speak HTTP: its settings have no proxy"
    if check.wire and not subject.wire:
        return "the provider is a recording: no requests leave"
    return ""


async def _run(check: Check, bench: Bench, alone: bool) -> tuple[Outcome, str]:
    problems: list[str] = []
    async with bench.module:
        try:
            outcome, reason = await _outcome(check, bench)
        finally:  # when the run is cancelled too
            problems += await bench.clear()
            if alone:
                problems += await _closed(bench.lender)
        if outcome == "failed" and not alone:
            problems += await bench.lender.look_after(bench.borrowed)
    logged = repr([bench.log.records, bench.lender.log.records])
    bench.lender.log.records.clear()  # a secret there is told once
    if any(secret in logged for secret in bench.secrets):
        problems.append("a secret was logged")
    if problems:
        outcome, reason = "failed", "; ".join([*([reason] if outcome == "failed" else []), *problems])
    return outcome, _masked(bench, reason)


async def _closed(lender: Lender) -> list[str]:
    try:
        return await lender.close()
    except Exception as error:  # noqa: BLE001 - whatever a broken module raises is a result
        return [f"what was lent cannot be removed: {error!r}"]


async def _outcome(check: Check, bench: Bench) -> tuple[Outcome, str]:
    try:
        async with asyncio.timeout(bench.seconds(bench.subject.check_timeout)):
            await check.function(bench)
    except Unsupported as error:
        return "skipped", f"the provider: {error.detail}"
    except CheckFailed as error:
        return "failed", str(error)
    except VendorError as error:
        return "failed", f"{type(error).__name__}: {error}"
    except NotImplementedError as error:
        return "failed", f"{MISSING} {error}"
    except TimeoutError:
        return "failed", f"not done after {bench.seconds(bench.subject.check_timeout):g} s"
    except Exception as error:  # noqa: BLE001 - whatever a broken module raises is a result
        return "failed", f"{type(error).__name__}, which is no VendorError: {error}{_place(error)}"
    return "passed", ""


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace else ""


async def _held(subject: Subject) -> dict[tuple[str, str], str] | str:
    """What the account holds: (kind, id) to name; or why that cannot be told."""
    bench = Bench(subject, Lender(subject))
    try:
        async with bench.module:
            return {(kind, resource.id): resource.name for kind, resource in await inventory(bench.module)}
    except Exception as error:  # noqa: BLE001 - whatever a broken module raises is a result
        return _masked(bench, f"the account cannot be listed: {type(error).__name__}: {error}")


async def _compare(subject: Subject, before: dict[tuple[str, str], str] | str, problems: list[str]) -> Result:
    started, after = time.monotonic(), await _held(subject)
    if isinstance(before, str) or isinstance(after, str):
        reason = before if isinstance(before, str) else str(after)
    else:
        more = [f"{kind} {id_}" for kind, id_ in after.keys() - before.keys()]
        less = [f"{kind} {id_}" for kind, id_ in before.keys() - after.keys()]
        reason = f"new: {', '.join(sorted(more)) or 'nothing'}; gone: {', '.join(sorted(less)) or 'nothing'}"
        reason = "; ".join([*([reason] if more or less else []), *problems])
    seconds = round(time.monotonic() - started, 3)
    return Result(LEAK_CHECK, LEAK_CONTRACT, "failed" if reason else "passed", reason, seconds)


def _name(capability: type[VendorModule]) -> str:
    return next(name for name, known in CAPABILITIES.items() if known is capability)


def _masked(bench: Bench, text: str) -> str:
    for secret in bench.secrets:
        text = text.replace(secret, "**********")
    return text
