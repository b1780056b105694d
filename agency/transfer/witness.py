"""Who says what came of a transfer: the destination's proxy, in a document that its site signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from agency.transfer.ends import BLOCK
from agency.transfer.manifest import root_text
from agency.trust.keys import SiteKey
from agency.trust.signing import Signer
from descriptors.base import Token, utc_now
from descriptors.transfer import TransferManifest

AGENT = "transfer"
"""Who signs what came of transfers: this name at the site's domain."""
STATEMENT_LIFETIME = timedelta(days=365)


@dataclass(frozen=True)
class Witness:
    """Who says what came of a transfer: the name of this proxy, and its site's key. Of what a relocation moves the
    site says it itself; then the name is that of whoever received the content."""

    name: str
    key: SiteKey

    def testify(self, id_: str, name: str, sender: str, size: int, root: bytes, wire: int, started: datetime) -> Token:
        """The signed statement that content of that size and root has arrived."""
        document = TransferManifest(
            id=id_,
            name=name,
            size=size,
            root=root_text(root),
            block_size=BLOCK,
            wire=wire,
            sender=sender,
            receiver=self.name,
            started=started,
            finished=utc_now(),
        )
        signer = Signer(f"{AGENT}@{self.key.name}", self.key)
        return signer.sign(document, audience=sender, expires=utc_now() + STATEMENT_LIFETIME)
