"""Tokens of transfers as people handle them."""

from __future__ import annotations

import base64
import binascii

from agency.problems import refuse
from agency.transfer.wire import TOKEN


def text_of(token: bytes) -> str:
    """A token as people handle it: 43 characters."""
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def token_in(text: str) -> bytes:
    """The token in the text; refused (``bad-token``), without showing it, where there is none."""
    try:
        token = base64.b64decode(text + "=", altchars=b"-_", validate=True)
        if len(token) != TOKEN or text_of(token) != text:
            raise ValueError
    except (ValueError, binascii.Error):
        raise refuse(
            "bad-token", "that is no transfer token", "give the 43 characters that `agency transfer token` has printed"
        ) from None
    return token
