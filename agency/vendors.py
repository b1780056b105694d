"""Adding and examining vendors. Works on the state directory, whether an agency runs there or not."""

from __future__ import annotations

import asyncio
import keyword
import re
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from agency.clouds import CLOUDS, USERNAME, Cloud
from agency.problems import problem_of, refuse
from agency.settings import Settings
from agency.state import alone, opened, services
from agency.store.credentials import hide
from agency.store.persistence import StorePersistence
from agency.store.store import Store, VendorConfig
from agency.strategies import policy
from agency.trust.site import sites
from broker.pricing import Policy
from descriptors.directory import AgentAddress
from vendor_modules import registry, scaffold
from vendor_modules.capabilities import inventory
from vendor_modules.conformance import Subject
from vendor_modules.conformance.watching import FixedCredentials
from vendor_modules.resources import Catalogue
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials, PasswordCredentials
from vendor_modules.services.persistence import MemoryPersistence
from vendor_modules.services.serialization import JsonSerialization
from vendor_modules.vendor_file import VendorFile

MACHINE_KEYS = ".machines"
"""The keys to a vendor's machines are kept beside its credentials, under its name with this behind it."""


def begin(name: str, directory: Path) -> list[Path]:
    """Write a new Vendor Module of that name below the directory; returns its files."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", name) or keyword.iskeyword(name):
        raise refuse(
            "bad-value",
            f"{name!r} cannot be a module's name",
            "begin with a lower-case letter; then letters, digits and inner hyphens, at most 40",
        )
    if find_spec(name.replace("-", "_")):
        raise refuse("bad-value", f"there is a Python package {name!r} already", "take another name")
    try:
        return scaffold.write(name, directory)
    except FileExistsError:
        raise refuse("already-exists", f"{directory / name} exists", "take another name, or remove it") from None


async def add(state: Path, name: str, file: VendorFile, agent: str | None = None) -> Catalogue:
    """Add a vendor, or replace the one of that name, once it has answered; returns what it sells. Until it has, nothing
    is kept, and the vendor that is replaced stays as it was. ``agent``: the address of the agent that speaks for it, at
    another site; by default one of this site's own will."""
    kind = file.kind()
    if file.folder is not None:
        raise refuse(
            "module-not-installed",
            f"{file.module} is a file: the agency would not find the module at its next start",
            "install it (`pip install -e`, see its pyproject.toml), and give its name instead",
        )
    if file.credentials.kind not in kind.credential_kinds:
        raise refuse(
            "bad-credentials",
            f"module {file.module} does not log in with {file.credentials.kind!r} credentials",
            f"give credentials of kind {' or '.join(kind.credential_kinds)}",
        )
    settings = kind.Settings.model_validate(file.settings)
    negotiates = policy(file.negotiation)
    if agent is not None and negotiates.negotiable:
        raise refuse(
            "bad-value",
            f"how {name} negotiates is for {agent} to say, which speaks for it",
            "leave the section 'negotiation' out of the file",
        )
    hide(file.credentials)
    if agent is not None or state.exists():
        async with opened(Settings(state=state)) as (store, _):
            await _check_agent(store, name, agent)
    trial = Services(
        FixedCredentials(file.credentials), MemoryPersistence(), structlog.get_logger("agency"), JsonSerialization()
    )
    async with kind(name, settings, trial) as module:
        catalogue = await module.catalogue()
    async with opened(Settings(state=state)) as (store, credentials):
        await credentials.put(name, file.credentials)
        kept = settings.model_dump(mode="json")
        await store.save_vendor(VendorConfig(name, file.module, kept, stated(negotiates), agent))
    return catalogue


async def _check_agent(store: Store, name: str, agent: str | None) -> None:
    """Refuse what is no agent of another site that is trusted; and to put another agent in the place of the one with
    whom it was agreed what runs."""
    before = next((vendor for vendor in await store.vendors() if vendor.name == name), None)
    if before is not None and before.agent != agent and await StorePersistence(store).resources(name, status="created"):
        speaks = before.agent or "this site's own agent"
        raise refuse(
            "vendor-in-use",
            f"{speaks} speaks for {name}, and what was agreed with it still runs there",
            "destroy or relocate what runs there first, or take another name",
        )
    if agent is None:
        return
    try:
        TypeAdapter(AgentAddress).validate_python(agent)
    except ValidationError:
        raise refuse(
            "bad-value", f"{agent[:200]!r} is no agent's address", f"give one such as vendor-{name}@agency.b.example"
        ) from None
    site = agent.partition("@")[2]
    known = {each.site: each for each in await sites(store)}
    if site not in known:
        raise refuse("unknown-site", f"{site} is not trusted", f"`agency trust add {site} KEY` first")
    if known[site].own:
        raise refuse("own-site", f"{site} is this site: its own agent speaks for {name}", "leave --agent out")


def stated(negotiates: Policy) -> dict[str, Any]:
    """The policy as it was stated, to be kept."""
    return negotiates.model_dump(mode="json", by_alias=True, exclude_defaults=True)


async def remove(state: Path, name: str) -> None:
    """Forget a vendor, its credentials and the keys to its machines; refused while something of ours is there, or may
    be."""
    async with opened(Settings(state=state)) as (store, credentials):
        vendor = next((vendor for vendor in await store.vendors() if vendor.name == name), None)
        if vendor is None:
            raise refuse("unknown-vendor", f"there is no vendor {name!r}", "see `agency vendors`")
        await _look_for_what_was_intended(state, vendor, services(store, credentials, state))
        held = await StorePersistence(store).resources(name, status="created")
        if held:
            what = ", ".join(f"{record.kind} {record.id}" for record in held[:5])
            raise refuse("vendor-in-use", f"{name} still holds {what}", "destroy or relocate what runs there first")
        # the vendor goes last: as long as it is known, removing it can be tried again
        await credentials.delete(f"{name}{MACHINE_KEYS}")
        await credentials.delete(name)
        await store.remove_vendor(name)


async def _look_for_what_was_intended(state: Path, vendor: VendorConfig, given: Services) -> None:
    """Ask the vendor what became of the creations whose answer never came, and remember that; refused when it cannot
    be asked, or while an agency runs that may have one of them under way."""
    intended = await given.persistence.resources(vendor.name, status="intended")
    if not intended:
        return
    with alone(state):
        try:
            kind = registry.load(vendor.module)
            async with kind(vendor.name, kind.Settings.model_validate(vendor.settings), given) as module:
                await asyncio.sleep(module.visible_within)
                held = await inventory(module, {record.kind for record in intended})
        except Exception as error:
            what = ", ".join(f"{record.kind} {record.key}" for record in intended[:5])
            why = f"what became of {what} is not known, and {vendor.name} does not say: {problem_of(error).message}"
            raise refuse("vendor-in-use", why, "try again when the vendor answers") from error
        found = {(kind, resource.key): resource.id for kind, resource in held}
        for record in intended:
            made = found.get((record.kind, record.key))
            now = replace(record, status="created", id=made) if made else replace(record, status="destroyed")
            await given.persistence.save_resource(now)


@asynccontextmanager
async def subject(state: Path, name: str, file: VendorFile | None) -> AsyncIterator[Subject]:
    """Whom to examine: the vendor of a file; else the agency's vendor of that name; else a testbed cloud of its own;
    else what ``agency vendor new`` has made here under that name."""
    if file is not None:
        hide(file.credentials)
        yield file.subject(name)
        return
    known: dict[str, VendorConfig] = {}
    credentials: Credentials | None = None
    if state.exists():
        async with opened(Settings(state=state)) as (store, kept):
            known = {vendor.name: vendor for vendor in await store.vendors()}
            credentials = await kept.get(name)
    described = Path(name) / "vendor.yaml"
    if name in known and described.is_file():
        raise refuse(
            "ambiguous-vendor",
            f"{name!r} is a vendor of the agency's, and described in {described}",
            f"say which: with --config {described}, or from another folder",
        )
    if name in known and credentials is not None:
        kind = registry.load(known[name].module)
        yield Subject(kind, kind.Settings.model_validate(known[name].settings), credentials, vendor=name)
    elif name == "testbed":
        async with _testbed() as examined:
            yield examined
    elif described.is_file():
        yield VendorFile.read(described).subject(name)
    else:
        raise refuse(
            "unknown-vendor",
            f"there is no vendor {name!r}; there are: {', '.join(sorted(known)) or 'none'}",
            "describe it in a file and give it with --config, or add it with `agency vendor add`",
        )


@asynccontextmanager
async def _testbed() -> AsyncIterator[Subject]:
    """A testbed cloud that lasts as long as the examination."""
    kind = registry.load("testbed")
    password = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="agency-check-") as directory:
        config = {**CLOUDS[0], "name": "examined", "latency_ms": 0, "bandwidth_bytes_per_second": None}
        cloud = Cloud(config, Path(directory), password, restart_after=1.0)
        try:
            await cloud.start()
            account = PasswordCredentials.model_validate({"username": USERNAME, "password": password})
            yield Subject(kind, kind.Settings.model_validate({"url": cloud.url}), account, vendor="testbed")
        finally:
            await cloud.stop()
