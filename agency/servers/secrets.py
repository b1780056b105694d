"""What the agency logs in to its XMPP server with: encrypted in the state directory, beside the credentials of vendors.

A JID has one secret: the domain of a component (XEP-0114) its handshake's, an account its password.
"""

from __future__ import annotations

from pydantic import SecretStr

from agency.store.credentials import EncryptedCredentials
from vendor_modules.services.credentials import PasswordCredentials


async def keep(credentials: EncryptedCredentials, jid: str, secret: SecretStr) -> None:
    """Keep the secret of that JID in place of any."""
    await credentials.put(_scope(jid), PasswordCredentials(username=jid, password=secret))


async def find(credentials: EncryptedCredentials, jid: str) -> SecretStr | None:
    """The secret of that JID; None if there is none."""
    found = await credentials.get(_scope(jid))
    return found.password if isinstance(found, PasswordCredentials) else None


def _scope(jid: str) -> str:
    """Beside the names of vendors, none of which has a colon."""
    return f"xmpp:{jid}"
