"""Why a signed document, a certificate or a key is not believed."""

from __future__ import annotations

from agency.problems import AgencyError, refuse

_REMEDIES = {
    "malformed": "send a JWS in compact form, as docs/trust.md describes it",
    "unknown-key": "ask that site for its key, over another way, and `agency trust add SITE KEY`",
    "forged": "do not rely on it: whoever sent it does not hold the key that it names",
    "altered": "do not rely on it; ask its signer for it again",
    "wrong-document": "send the document that this step of the protocol asks for",
    "wrong-sender": "do not rely on it: only its signer may send it",
    "wrong-audience": "have it signed for whom it is sent to",
    "wrong-answer": "have it signed in answer to what it was asked with",
    "expired": "ask for a new one",
    "not-yet-valid": "set the clocks of both sites right, then ask for a new one",
    "replayed": "ask for a new one: each is good for one conversation",
    "too-old": "ask for a new one",
}
"""Every code there is, and what to do about it."""


class Untrusted(AgencyError):
    """It is refused. ``code`` is one of ``malformed``, ``unknown-key``, ``forged``, ``altered``, ``wrong-document``,
    ``wrong-sender``, ``wrong-audience``, ``wrong-answer``, ``expired``, ``not-yet-valid``, ``replayed`` and
    ``too-old``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(refuse(code, message, _REMEDIES[code]).problem)

    @property
    def code(self) -> str:
        """A stable word to match on."""
        return self.problem.code
