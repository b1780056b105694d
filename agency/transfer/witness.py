"""Who says what came of a transfer: the destination's proxy, in a document that its site signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from agency.transfer.ends import BLOCK
from agency.transfer.identity import Peer
from agency.transfer.manifest import Manifest, root_text
from agency.trust.keys import SiteKey
from agency.trust.signing import Signer
from descriptors.base import utc_now
from descriptors.transfer import TransferManifest

AGENT = "transfer"
"""Who signs what came of transfers: this name at the site's domain."""
STATEMENT_LIFETIME = timedelta(days=365)


@dataclass(frozen=True)
class Witness:
    """Who says what came of a transfer: the name of this proxy, and its site's key."""

    name: str
    key: SiteKey

    def testify(self, id_: str, name: str, peer: Peer, manifest: Manifest, wire: int, started: datetime) -> bytes:
        """The signed statement that the content of this manifest has arrived here."""
        document = TransferManifest(
            id=id_,
            name=name,
            size=manifest.size,
            root=root_text(manifest.root()),
            block_size=BLOCK,
            wire=wire,
            sender=peer.name,
            receiver=self.name,
            started=started,
            finished=utc_now(),
        )
        signer = Signer(f"{AGENT}@{self.key.name}", self.key)
        return signer.sign(document, audience=peer.name, expires=utc_now() + STATEMENT_LIFETIME).encode()
