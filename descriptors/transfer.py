"""What came of a transfer, as the destination's site signs it; what a relocation moved, the site that moved it."""

from __future__ import annotations

from pydantic_xml import attr

from descriptors.base import Bytes, Digest, Document, Identifier, Moment, Text


class TransferManifest(Document, tag="transfer-manifest"):
    """Content has arrived, and is durable at its destination."""

    id: Identifier = attr()
    """The transfer's, at the proxy of the destination; in a relocation ``PLAN/TASK``."""
    name: Text = attr()
    """What the destination calls the content: a file, or a vendor's image."""
    size: Bytes = attr()
    """Bytes of the content, holes included."""
    root: Digest = attr()
    """BLAKE3 over the size (8 bytes) and the BLAKE3 digests of all blocks (docs/transfer.md)."""
    block_size: Bytes = attr()
    wire: Bytes = attr()
    """Bytes that went over the streams, both ways, before encryption, as the destination last counted them; in a
    relocation, the content that came from the vendor, or went there, since it was last gone on with."""
    sender: Identifier = attr()
    """The name in the certificate of the proxy that it came from; in a relocation the source's vendor, then the site
    that relocates."""
    receiver: Identifier = attr()
    """The name in the certificate of the proxy that it came to; in a relocation the site, then the target's vendor."""
    started: Moment = attr()
    finished: Moment = attr()
