"""Configuration rules: a file and a regular expression, and the values that are known only once resources exist."""

from __future__ import annotations

import asyncio
import time

import regex

from agency.problems import AgencyError, refuse
from agency.relocation.workshop import Run
from descriptors.application import PLACEHOLDER, Component, Rewrite
from descriptors.base import MIB
from vendor_modules.capabilities import AccessKeys, Addresses
from vendor_modules.proposals import MACHINE_DISK

REWRITE_WITHIN = 5.0
"""Seconds that the rules for one file may take together: patterns come from descriptors, and some take for ever."""
LARGEST_RESULT = 64 * MIB
"""Most bytes that a file may have after a rule."""


def disk_path(resource: str) -> str:
    """Where a volume lies in a machine's own disk, after it was adapted."""
    return f"volumes/{resource}.raw"


def in_machine_disk(run: Run, resource: str) -> bool:
    """Whether an agreement puts that volume into the machine's own disk."""
    allocations = (allocation for agreement in run.order.agreements for allocation in agreement.allocations)
    return any(a.resource == resource and a.size == MACHINE_DISK for a in allocations)


async def values(component: Component, run: Run) -> dict[str, str]:
    """The value of every placeholder that the component's rules use. Secrets are among them: keep them in memory."""
    wanted = {name for rewrite in component.rewrites for name in rewrite.placeholders()}
    found: dict[str, str] = {}
    for use in component.volumes:
        found[f"volume.{use.resource}.device"] = (
            disk_path(use.resource) if in_machine_disk(run, use.resource) else use.device
        )
    for bucket in component.buckets:
        if any(name.startswith(f"bucket.{bucket.resource}.") for name in wanted):
            found |= await _bucket(bucket.resource, run)
    for name in component.depends_on:
        if f"component.{name}.url" in wanted:
            found[f"component.{name}.url"] = await url_of(name, run)
    return found


async def _bucket(resource: str, run: Run) -> dict[str, str]:
    output = run.outputs.get(f"access-key-{resource}")
    made = output.created if output else None
    deployed = made or run.order.deployment.the("access-key", resource=resource)
    key = await run.module(deployed.vendor, AccessKeys).describe_access_key(deployed.id)
    return {
        f"bucket.{resource}.endpoint": key.endpoint,
        f"bucket.{resource}.access_key": key.access_key,
        f"bucket.{resource}.secret_key": key.secret_key.get_secret_value(),
    }


async def url_of(component: str, run: Run) -> str:
    """Where the component is, or will be, reached by the world."""
    output = run.outputs.get(f"address-{component}")
    if output is None or output.created is None:
        return next(e.url for e in run.order.deployment.endpoints if e.component == component)
    address = await run.module(output.created.vendor, Addresses).describe_address(output.created.id)
    return f"http://{address.host}:{address.port}"


async def rewritten(component: Component, path: str, content: bytes, known: dict[str, str]) -> bytes:
    """What :func:`rewrite` makes of the file, in a thread: the agency goes on meanwhile."""
    return await asyncio.to_thread(rewrite, component, path, content, known)


def rewrite(component: Component, path: str, content: bytes, known: dict[str, str]) -> bytes:
    """The file with the component's rules for it applied; a rule that matches nothing is an error.

    Blocks for up to :data:`REWRITE_WITHIN`, without holding other threads up.
    """
    rules = [rule for rule in component.rewrites if rule.file == path]
    if not rules:
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise refuse(
            "rewrite-failed", f"{component.name}: {path} is not UTF-8 text", "use rewrite rules on text files only"
        ) from None
    deadline = time.monotonic() + REWRITE_WITHIN
    for rule in rules:
        value = PLACEHOLDER.sub(lambda match: known[match[1]], rule.value)
        try:
            text, count = _replaced(rule, value, text, deadline)
        except TimeoutError:
            trouble = f"is not done within the {REWRITE_WITHIN:g} s that all rules for {path} may take"
            raise _failed(component, rule, trouble, "simplify the pattern: avoid choices that are repeated") from None
        except MemoryError:
            raise _failed(component, rule, f"takes too much memory on {path}", "simplify the pattern") from None
        except _TooLarge:
            trouble = f"makes {path} larger than {LARGEST_RESULT // MIB} MiB"
            raise _failed(component, rule, trouble, "correct the rule: it seems to match too often") from None
        if not count:
            remedy = "correct the rule, or the file; a rule must also match its own result"
            raise _failed(component, rule, f"matches nothing in {path}", remedy)
    return text.encode()


class _TooLarge(Exception):
    """A rule writes more than anybody wants to have in a file."""


def _replaced(rule: Rewrite, value: str, text: str, deadline: float) -> tuple[str, int]:
    """The text with the value, taken literally, for every match, and how many there were."""
    size, added = len(text.encode()), len(value.encode())

    def put(match: regex.Match[str]) -> str:
        nonlocal size
        size += added - len(match[0].encode())
        if size > LARGEST_RESULT:
            raise _TooLarge
        if time.monotonic() > deadline:  # many quick matches: the engine looks at its clock within slow ones only
            raise TimeoutError
        return value

    left = max(deadline - time.monotonic(), 0.001)
    return rule.expression().subn(put, text, timeout=left, concurrent=True)


def _failed(component: Component, rule: Rewrite, trouble: str, remedy: str) -> AgencyError:
    return refuse("rewrite-failed", f"{component.name}: the rule {rule.pattern!r:.1000} {trouble}", remedy)
