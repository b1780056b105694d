"""The page of the documentation that lists all checks: ``python -m vendor_modules.conformance.document`` prints it."""

from __future__ import annotations

import sys

from vendor_modules.capabilities import CAPABILITIES
from vendor_modules.conformance.checks import CHECKS
from vendor_modules.conformance.registry import Check
from vendor_modules.conformance.suite import LEAK_CHECK, LEAK_CONTRACT
from vendor_modules.module import VendorModule

_OPENING = """\
# The conformance suite

<!-- Generated: `python -m vendor_modules.conformance.document > docs/conformance.md`; a test keeps it true. -->

A Vendor Module that passes this suite can be trusted. The suite works on a real account, which should be one made for
it: whatever it creates there, it removes, and the last check compares. Run it with
`agency vendor check NAME --config FILE` (`--json`), or from pytest with the fifteen lines that
[`vendor_modules/conformance/__init__.py`](../vendor_modules/conformance/__init__.py) begins with.

- **{total} checks**, each with a name and a contract in one sentence. One is skipped only where the module lacks a
  capability that it needs, or the provider has no such service at all; the report says which.
- **Declared is behaved.** What a module declares of its operations (`abilities`) decides what is asked of it, and a
  module that does less, or more, fails.
- **Few machines.** On real clouds they take their time. A whole run makes about thirteen, and two more for faults on
  the wire, because checks borrow them from a *lender* and leave them as they found them.
- **Slow clouds** get more time by `Subject(patience=…)`. Other fields of `Subject` tell the suite how ids look, how
  long a page is, which volumes are sold, and what an emulator leaves out (`machines_run`, `credentials_checked`,
  `wire`).
- **Faults on the wire** (marked *wire*): for modules whose settings are `HttpSettings`, a proxy
  ([`faults.py`](../vendor_modules/conformance/faults.py)) is put between the module and its provider. It loses answers,
  breaks connections, throttles, stalls, answers junk, delivers twice, and says that it deleted what it did not.
- The suite's own tests are modules broken on purpose, each caught by the check that is for it:
  `tests/vendor_modules/test_conformance_*.py`.
"""


def page() -> str:
    """All checks with their contracts, those of every kind and operation once, grouped by what they examine."""
    lines = [_OPENING.format(total=len(CHECKS) + 1)]
    topic, told = "", set[tuple[str, str]]()
    for check in CHECKS:
        if check.topic != topic:
            topic = check.topic
            lines += ["", f"## {(sys.modules[topic].__doc__ or '').strip().rstrip('.')}", ""]
        if check.family is None:
            lines.append(_line(check.name, check.contract, check))
        elif check.family not in told:
            told.add(check.family)
            lines.append(_line(*check.family, check))
    lines += ["", "## In the end", "", f"- `{LEAK_CHECK}`: {LEAK_CONTRACT}", ""]
    return "\n".join(lines)


def _line(name: str, contract: str, check: Check) -> str:
    members = [other for other in CHECKS if other.family == check.family] if check.family else []
    needs = [name for name, known in CAPABILITIES.items() if known in check.needs and known is not VendorModule]
    marks = [f"{len(members)} of them"] if members else [", ".join(needs)] if needs else []
    marks += ["*wire*"] if check.wire else []
    note = f" ({'; '.join(marks)})" if marks else ""
    return f"- `{name}`{note}: {contract}"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - that is what it is for
