"""What content consists of: a digest for each block, by place, in a file that is mapped: no size fills the memory."""

from __future__ import annotations


class Manifest:
    """Digests by place."""
