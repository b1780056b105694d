"""What `agency trust`, `proof` and `verify` do: on the state directory, whether an agency runs there or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agency.settings import DOMAIN, Settings
from agency.state import make, opened
from agency.store.store import Store
from agency.trust import proof, site
from agency.trust.keys import TrustedKeys
from agency.trust.signing import Verifier


async def own(state: Path) -> list[site.TrustedSite]:
    """What this site is to be trusted by: its name and public key, made if it has none yet. One that has changed its
    domain has several names."""
    settings = Settings(state=state)
    async with opened(settings) as (store, credentials):
        names = {each.site for each in await site.sites(store) if each.own}
        if not names or settings.domain not in {*names, DOMAIN}:
            await site.Site.open(store, credentials, settings.domain)
        return [each for each in await site.sites(store) if each.own]


async def trusted(state: Path) -> list[site.TrustedSite]:
    """Everybody who is trusted; nobody where there is no state directory."""
    settings = Settings(state=state)
    if settings.database is None and not state.exists():
        return []
    async with Store.open(settings.store_url()) as store:
        return await site.sites(store)


async def trust(state: Path, name: str, key: str) -> site.TrustedSite:
    """Trust a site by a key; see :func:`agency.trust.site.add_site`."""
    async with _store(state) as store:
        return await site.add_site(store, name, key)


async def distrust(state: Path, name: str) -> None:
    """Trust a site no longer; see :func:`agency.trust.site.remove_site`."""
    async with _store(state) as store:
        await site.remove_site(store, name)


async def prove(state: Path, application: str) -> proof.Proof:
    """The proof of an application's agreements and receipts; see :func:`agency.trust.proof.collect`."""
    async with _store(state) as store:
        return await proof.collect(store, application)


async def verify(state: Path, file: Path) -> list[proof.Link]:
    """The chain in a proof, or the manifest of a transfer, held against the sites that are trusted here; see
    :func:`agency.trust.proof.verify`."""
    given = proof.read(file)
    verifier = Verifier(TrustedKeys([(each.site, each.key) for each in await trusted(state)]))
    return [proof.verify_manifest(given, verifier)] if isinstance(given, str) else proof.verify(given, verifier)


@asynccontextmanager
async def _store(state: Path) -> AsyncIterator[Store]:
    settings = Settings(state=state)
    make(settings.state)
    async with Store.open(settings.store_url()) as store:
        yield store
