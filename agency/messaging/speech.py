"""What binds is said signed: as a token (see :mod:`agency.trust.signing`), where all else is a plain document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from spade.message import Message

from agency.messaging.acl import NotUnderstood, Performative, Said, said_in
from agency.trust.signing import Signed
from agency.trust.site import Site
from descriptors.base import Document, utc_now

D = TypeVar("D", bound=Document)


class Speech:
    """An agent's binding words, and its judgement of others'."""

    def __init__(self, jid: str, site: Site) -> None:
        """``jid``: the agent's address; ``site``: where it lives, which certifies it."""
        self._jid = jid
        self._site = site
        self._signer = site.signer(jid)

    def bind(
        self, performative: Performative, document: Document, *, to: str, expires: datetime, answers: Sequence[str]
    ) -> Said:
        """A document that binds until it expires, for the agent ``to``, in answer to the documents with these
        digests."""
        token = self._signer.sign(document, audience=to, expires=expires, answers=answers)
        return Said(performative, "jose", token)

    def believe(
        self, message: Message, expect: type[D], answering: str | None = None, *, binding: bool = True
    ) -> Signed[D]:
        """What the message's sender binds itself to, in answer to the document of that digest. ``binding=False``:
        before anything rests on it, it is read once more, by :meth:`recall` or :meth:`keep`.

        :class:`~agency.trust.untrusted.Untrusted` says why it is not believed; :class:`NotUnderstood` where it is not
        signed at all."""
        said = said_in(message)
        if said.language != "jose":
            raise NotUnderstood(f"this {expect.tag} is not signed: expected language 'jose', not {said.language!r}")
        sender, thread = message.sender.bare, message.thread or ""
        return self._site.verifier.verify(
            said.body, expect, audience=self._jid, sender=sender, conversation=thread, now=utc_now(),
            answering=answering, binding=binding,
        )  # fmt: skip

    def recall(self, said: Said, expect: type[D]) -> Signed[D]:
        """What was believed or said before, from where it was kept."""
        return self._site.verifier.read(said.body, expect)

    async def keep(self, said: Said, expect: type[D], *, application: str, conversation: str) -> Signed[D]:
        """Keep it as a proof, durably, before anything rests on it."""
        signed = self.recall(said, expect)
        await self._site.keep(signed, application=application, conversation=conversation)
        return signed
