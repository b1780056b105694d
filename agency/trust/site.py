"""The site that an agency is: its key, whom it trusts, and the signed documents that it keeps. All is in the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

import structlog
from pydantic import SecretStr
from slixmpp import JID
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from agency.problems import refuse
from agency.store.credentials import CredentialsUnreadable, EncryptedCredentials
from agency.store.models import SiteRow, TokenRow
from agency.store.store import Store
from agency.trust.keys import SiteKey, TrustedKeys, from_public_text, public_text, site_name
from agency.trust.replays import Replays
from agency.trust.signing import D, Signed, Signer, Untrusted, Verifier
from descriptors.base import utc_now
from vendor_modules.services.credentials import Credentials, KeyPairCredentials

REFRESH_SECONDS = 5.0
"""How soon a running agency knows of what `agency trust` has changed."""
SITE_KEY = ".site"
"""The site's key is kept among the credentials under this name, which no vendor can have."""

log = structlog.get_logger("agency")


@dataclass(frozen=True)
class TrustedSite:
    """A site whose agents are believed, by one of its keys."""

    site: str
    key: str
    own: bool
    added: datetime


class Site:
    """This site, open: made by :meth:`open`."""

    def __init__(self, key: SiteKey, trusted: TrustedKeys, replays: Replays, store: Store) -> None:
        self.key = key
        self.verifier = Verifier(trusted, replays)
        self._trusted = trusted
        self._store = store

    @classmethod
    async def open(cls, store: Store, credentials: EncryptedCredentials, name: str) -> Site:
        """The site of that name, which is the domain of its agents, with its key, made when it is first asked for.
        Signed documents that were kept are not taken again from anywhere else, whichever process took them."""
        key = await site_key(credentials, name)
        await _remember_own(store, key)
        site = cls(key, TrustedKeys(), await _taken(store), store)
        await site.refresh()
        return site

    def signer(self, jid: str) -> Signer:
        """Signs for the agent with that address, which must be at this site's domain."""
        return Signer(jid, self.key)

    def others(self) -> frozenset[str]:
        """The names (domains) of the other sites that are trusted now."""
        return self._trusted.sites() - {self.key.name}

    def knows(self, address: JID) -> bool:
        """Whether it is the address of an agent of this site, or of one that is trusted now."""
        return address.domain in self._trusted.sites()

    async def refresh(self) -> None:
        """Trust whom the store says, which `agency trust` may have changed."""
        self._trusted.replace([(each.site, each.key) for each in await sites(self._store)])

    async def keep_current(self) -> None:
        """Refresh every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except Exception as error:
                log.warning("the trusted sites cannot be read", exc_info=error)

    async def signed_by(self, digest: str) -> frozenset[str]:
        """Who has signed the document with that digest (JIDs), as far as what was signed is kept here."""
        async with self._store.transaction() as session:
            return frozenset(await session.scalars(select(TokenRow.issuer).where(TokenRow.digest == digest)))

    async def keep(self, signed: Signed[D], *, application: str, conversation: str) -> None:
        """Keep a signed document, durably, before anything rests on it; the same one again is fine.
        :class:`~agency.trust.untrusted.Untrusted` when its nonce was used for something else."""
        row = TokenRow(
            kid=signed.kid,
            nonce=signed.nonce,
            tag=signed.document.tag,
            digest=signed.digest,
            application=application,
            conversation=conversation,
            issuer=signed.issuer,
            issued=signed.issued,
            expires=signed.expires,
            token=signed.token,
        )
        try:
            async with self._store.transaction() as session:
                session.add(row)
        except IntegrityError:
            same = (TokenRow.kid == signed.kid, TokenRow.nonce == signed.nonce)
            async with self._store.transaction() as session:
                known = await session.scalar(select(TokenRow).where(*same))
            if known is None or (known.token, known.conversation) != (signed.token, conversation):
                raise Untrusted("replayed", "its nonce was used before") from None


async def site_key(credentials: EncryptedCredentials, name: str) -> SiteKey:
    """The site's key, made when there is none; refused (``site-key-unreadable``) when it cannot be decrypted."""
    try:
        kept: Credentials | None = await credentials.get(SITE_KEY)
        if kept is None:
            made = SiteKey.generate(name)
            pair = KeyPairCredentials(public_key=made.public, private_key=SecretStr(made.secret()))
            kept = await credentials.put_first(SITE_KEY, pair)
    except CredentialsUnreadable:
        raise refuse(
            "site-key-unreadable",
            "the key of this site cannot be decrypted",
            "use the master key that it was kept with: what was signed with this key cannot be signed with another",
        ) from None
    if not isinstance(kept, KeyPairCredentials):
        raise refuse("site-key-unreadable", "what is kept as this site's key is none", "restore it from a backup")
    return SiteKey.from_secret(name, kept.private_key.get_secret_value())


async def sites(store: Store) -> list[TrustedSite]:
    """All trusted sites and keys, this one first."""
    async with store.transaction() as session:
        rows = (await session.scalars(select(SiteRow).order_by(SiteRow.own.desc(), SiteRow.site, SiteRow.added))).all()
    return [TrustedSite(row.site, row.key, row.own, row.added) for row in rows]


async def add_site(store: Store, name: str, key: str) -> TrustedSite:
    """Trust a site by this key, beside those it may have already. Refused for a name that is this site's own."""
    name, text = site_name(name), public_text(from_public_text(key))
    if any(each.own and each.site == name for each in await sites(store)):
        raise refuse("own-site", f"{name} is this site", "nothing need be done: a site trusts itself")
    await store.upsert(SiteRow, {"site": name, "key": text, "own": False, "added": utc_now()}, keep=("added",))
    return next(each for each in await sites(store) if (each.site, each.key) == (name, text))


async def remove_site(store: Store, name: str) -> None:
    """Trust a site no longer, by none of its keys; refused for this one, and where there is none of that name."""
    known = [each for each in await sites(store) if each.site == name]
    if not known:
        raise refuse("unknown-site", f"{name[:150]!r} is not trusted", "see `agency trust list`")
    if any(each.own for each in known):
        raise refuse("own-site", f"{name} is this site", "keep it: what it signed could not be verified")
    async with store.transaction() as session:
        await session.execute(delete(SiteRow).where(SiteRow.site == name))


async def _remember_own(store: Store, key: SiteKey) -> None:
    """Trust our own key; not if another's is trusted under our name, who could then speak for our agents."""
    if any(each.site == key.name and not each.own for each in await sites(store)):
        raise refuse(
            "site-name-taken",
            f"another site is trusted under this site's name, {key.name}",
            f"`agency trust remove {key.name}`, or take another domain",
        )
    own = {"site": key.name, "key": key.public, "own": True, "added": utc_now()}
    await store.upsert(SiteRow, own, keep=("added",))


async def _taken(store: Store) -> Replays:
    """A replay guard that knows what was kept and has not expired."""
    now = utc_now()
    query = select(TokenRow).where(TokenRow.expires > now).order_by(TokenRow.id)
    replays = Replays()
    async with store.transaction() as session:
        for row in (await session.scalars(query)).all():
            replays.take(
                row.kid,
                row.nonce,
                token=row.token,
                conversation=row.conversation,
                issued=int(row.issued.timestamp()),
                expires=int(row.expires.timestamp()),
                now=now.timestamp(),
            )
    return replays
