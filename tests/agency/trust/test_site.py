"""A site's key is made once and kept encrypted; whom it trusts and what it took outlast a restart."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from agency.problems import AgencyError
from agency.store.credentials import Cipher, EncryptedCredentials
from agency.store.store import Store
from agency.trust import site as sites
from agency.trust.keys import SiteKey, from_public_text
from agency.trust.signing import Signed, Signer, Untrusted
from agency.trust.site import Site
from descriptors.base import utc_now
from descriptors.sla import Offer
from tests.agency.trust.parties import BROKER, CALL, HERE, OFFER, THERE, VENDOR

KEY = bytes(range(32))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    async with Store.open(f"sqlite:///{tmp_path}/agency.db") as opened:
        yield opened


async def opened(store: Store, name: str = HERE, key: bytes = KEY) -> Site:
    """The site in the store, as a process that starts opens it."""
    return await Site.open(store, EncryptedCredentials(store, Cipher(key)), name)


async def test_key_lasts(store: Store) -> None:
    """The key that is made at the first start is the site's at every later one, under whatever name."""
    first = (await opened(store)).key
    assert (await opened(store)).key.public == first.public
    assert (await opened(store, "agents.a.example")).key.public == first.public


async def test_first_starts_at_once_agree(store: Store) -> None:
    """Processes that open a new site at the same time have the same key."""
    several = await asyncio.gather(*(opened(store) for _ in range(5)))
    assert len({site.key.public for site in several}) == 1


async def test_key_is_in_no_file(store: Store, tmp_path: Path) -> None:
    """No file holds the private key, in any encoding that we use."""
    secret = (await opened(store)).key.secret()
    raw = base64.urlsafe_b64decode(secret)[:32]
    forms = (raw, raw.hex().encode(), secret.encode(), base64.urlsafe_b64encode(raw)[:-1], base64.b64encode(raw))
    for file in tmp_path.rglob("*"):
        content = file.read_bytes()
        assert not any(form in content for form in forms), file


async def test_another_master_key(store: Store) -> None:
    """With another master key the site's key is refused in words, and no second one is made."""
    first = (await opened(store)).key
    with pytest.raises(AgencyError) as caught:
        await opened(store, key=bytes(32))
    assert caught.value.problem.code == "site-key-unreadable"
    assert (await opened(store)).key.public == first.public


@pytest.mark.parametrize("name", ["", "A.example", "a_b", "a example", "x" * 151, "a/b"])
async def test_site_names(store: Store, name: str) -> None:
    """What cannot be a domain is refused as a site's name."""
    with pytest.raises(AgencyError, match="no site's name"):
        await sites.add_site(store, name, SiteKey.generate(THERE).public)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "A" * 43,
        "ssh-ed25519 AAAA",
        *(f"ed25519:{x}" for x in ("", "A" * 42, "A" * 43, "A" * 44, "é" * 43, "B" * 43)),
    ],
)
def test_bad_keys(key: str) -> None:
    """What is no public key, written in the one way that it may be, is refused: also zeros, which are a weak one."""
    with pytest.raises(AgencyError) as caught:
        from_public_text(key)
    assert caught.value.problem.code == "bad-key"


async def test_trusting(store: Store) -> None:
    """Sites are added, listed and removed; one that is added is believed after a refresh, and removed, no longer."""
    site, there = await opened(store), SiteKey.generate(THERE)
    token = _signed(there)
    with pytest.raises(Untrusted, match="not trusted"):
        _taken(site, token)
    await sites.add_site(store, THERE, there.public)
    await sites.add_site(store, THERE, there.public)
    assert [(each.site, each.own) for each in await sites.sites(store)] == [(HERE, True), (THERE, False)]
    await site.refresh()
    assert _taken(site, token).site == THERE
    await sites.remove_site(store, THERE)
    await site.refresh()
    with pytest.raises(Untrusted) as caught:
        _taken(site, _signed(there))
    assert caught.value.code == "unknown-key"


async def test_own_site_is_no_others(store: Store) -> None:
    """Nobody else can be trusted under this site's name, and this site is not removed; what is unknown neither."""
    await opened(store)
    for work, code in (
        (sites.add_site(store, HERE, SiteKey.generate(HERE).public), "own-site"),
        (sites.remove_site(store, HERE), "own-site"),
        (sites.remove_site(store, "nobody.example"), "unknown-site"),
    ):
        with pytest.raises(AgencyError) as caught:
            await work
        assert caught.value.problem.code == code


async def test_a_name_that_another_has(store: Store) -> None:
    """A site does not start under the name of another that it trusts: that one could speak for its agents."""
    await sites.add_site(store, HERE, SiteKey.generate(HERE).public)
    with pytest.raises(AgencyError) as caught:
        await opened(store)
    assert caught.value.problem.code == "site-name-taken"


async def test_replays_after_a_restart(store: Store) -> None:
    """What was kept is not taken again by a later process in another conversation; in its own it is a repetition."""
    there = SiteKey.generate(THERE)
    await sites.add_site(store, THERE, there.public)
    first, token = await opened(store), _signed(there)
    await first.keep(_taken(first, token), application="guestbook", conversation=CALL)
    later = await opened(store)
    assert _taken(later, token).repeated
    with pytest.raises(Untrusted) as caught:
        _taken(later, token, "call-other")
    assert caught.value.code == "replayed"


async def test_keeping_twice(store: Store) -> None:
    """The same signed document can be kept again; another with its nonce, or the same for something else, cannot."""
    there = SiteKey.generate(THERE)
    await sites.add_site(store, THERE, there.public)
    site = await opened(store)
    signed = _taken(site, _signed(there))
    for _ in range(2):
        await site.keep(signed, application="guestbook", conversation=CALL)
    with pytest.raises(Untrusted):
        await site.keep(signed, application="guestbook", conversation="call-other")


def _signed(there: SiteKey) -> str:
    return Signer(VENDOR, there).sign(OFFER, audience=BROKER, expires=utc_now() + timedelta(minutes=1))


def _taken(site: Site, token: str, conversation: str = CALL) -> Signed[Offer]:
    return site.verifier.verify(token, Offer, audience=BROKER, sender=VENDOR, conversation=conversation, now=utc_now())
