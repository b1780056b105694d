"""What came of a transfer between two proxies, as the destination's site signs it."""

from __future__ import annotations

from pydantic_xml import attr

from descriptors.base import Bytes, Digest, Document, Identifier, Moment, Text


class TransferManifest(Document, tag="transfer-manifest"):
    """Content has arrived, and is durable at its destination."""

    id: Identifier = attr()
    """The transfer's, at the proxy of the destination."""
    name: Text = attr()
    """What the destination calls the content."""
    size: Bytes = attr()
    """Bytes of the content, holes included."""
    root: Digest = attr()
    """BLAKE3 over the size (8 bytes) and the BLAKE3 digests of all blocks (docs/transfer.md)."""
    block_size: Bytes = attr()
    wire: Bytes = attr()
    """Bytes that went over the streams, both ways, before encryption, as the destination last counted them."""
    sender: Identifier = attr()
    """The name in the certificate of the proxy that it came from."""
    receiver: Identifier = attr()
    """The name in the certificate of the proxy that it came to."""
    started: Moment = attr()
    finished: Moment = attr()
