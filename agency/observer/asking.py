"""Asking an agency's Mediator, as FIPA Request (SC00026H) has it and `docs/messages.md` writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aioxmpp

from agency.messaging.names import ACL, ONTOLOGY, PROTOCOL_REQUEST
from agency.observer.session import Failed
from descriptors import documents
from descriptors.application import Application
from descriptors.base import new_id
from descriptors.comparison import Comparison
from descriptors.documents import DocumentError, Form
from descriptors.messages import Problem

AGREE_WITHIN = 30.0
"""Seconds in which the Mediator must say something; the comparison then takes as long as its vendors have to answer."""
FIRST_PAUSE, LONGEST_PAUSE = 3.0, 60.0
"""Seconds between two times that the request is said: what is under way is lost with a connection, and the Mediator
does nothing twice."""
LARGEST = 250_000
"""Bytes of a descriptor that servers take from a client."""


class AclElement(aioxmpp.xso.XSO):  # type: ignore[misc]
    """FIPA's parameters."""

    TAG = (ACL, "acl")
    UNKNOWN_CHILD_POLICY = aioxmpp.xso.UnknownChildPolicy.DROP
    UNKNOWN_ATTR_POLICY = aioxmpp.xso.UnknownAttrPolicy.DROP
    performative = aioxmpp.xso.Attr("performative", default="")
    protocol = aioxmpp.xso.Attr("protocol", default="")
    ontology = aioxmpp.xso.Attr("ontology", default="")
    language = aioxmpp.xso.Attr("language", default="")
    conversation = aioxmpp.xso.Attr("conversation-id", default="")


aioxmpp.Message.cloud_agency_acl = aioxmpp.xso.Child([AclElement])


async def ask_for_offers(
    client: aioxmpp.Client, mediator: str, application: Application, say: Callable[[str], None]
) -> Comparison:
    """The comparison of what vendors offer for the application; :class:`Failed` with what the Mediator says if there is
    none. ``say``: tells of what is waited for."""
    asking = _Asking(client, aioxmpp.JID.fromstr(mediator), application)
    dispatcher = client.summon(aioxmpp.dispatcher.SimpleMessageDispatcher)
    with dispatcher.handler_context(None, asking.mediator, asking.on_message):
        repeating = asyncio.create_task(asking.keep_on())
        try:
            async with asyncio.timeout(AGREE_WITHIN):
                await asking.answered.wait()
            say("the vendors are asked")
            return await asking.result
        except TimeoutError:
            remedy = "check that the agency runs, and the Mediator's address: --mediator"
            raise Failed("no-answer", f"{mediator} does not answer", remedy) from None
        finally:
            repeating.cancel()


class _Asking:
    """One request, and what comes back."""

    def __init__(self, client: aioxmpp.Client, mediator: aioxmpp.JID, application: Application) -> None:
        self._client = client
        self._conversation = new_id("talk")
        self._body = documents.dump(application, Form.JSON)
        if (size := len(self._body.encode())) > LARGEST:
            remedy = "submit it with `agency submit`, on the agency's machine"
            raise Failed("message-too-large", f"the descriptor has {size} bytes, more than {LARGEST}", remedy)
        self.mediator = mediator
        self.answered = asyncio.Event()
        """Set when the Mediator has said anything."""
        self.result: asyncio.Future[Comparison] = asyncio.get_running_loop().create_future()

    async def keep_on(self) -> None:
        """Say the request, again and again."""
        pause = FIRST_PAUSE
        while True:
            self._client.enqueue(self._request())
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _request(self) -> aioxmpp.Message:
        message = aioxmpp.Message(type_=aioxmpp.MessageType.NORMAL, to=self.mediator)
        message.thread = aioxmpp.stanza.Thread()
        message.thread.identifier = self._conversation
        message.body[None] = self._body
        message.cloud_agency_acl = element = AclElement()
        element.performative, element.protocol = "request", PROTOCOL_REQUEST
        element.ontology, element.language = ONTOLOGY, "json"
        element.conversation = self._conversation
        return message

    def on_message(self, message: aioxmpp.Message) -> None:
        """Take what comes from the Mediator, if it belongs to our conversation."""
        if message.type_ is aioxmpp.MessageType.ERROR:
            self._bounced(message)
            return
        acl, thread = message.cloud_agency_acl, message.thread
        if acl is None or thread is None or thread.identifier != self._conversation:
            return
        if acl.performative != "agree":
            self._ended(acl.performative, message.body.any() if message.body else "")
        self.answered.set()

    def _bounced(self, message: aioxmpp.Message) -> None:
        said = str(message.error.to_exception()) if message.error is not None else "no reason given"
        remedy = "check that the agency runs, and the Mediator's address: --mediator"
        self._end(Failed("no-such-agent", f"{self.mediator} was not reached: {said}", remedy, retryable=True))
        self.answered.set()

    def _ended(self, performative: str, body: str) -> None:
        try:
            document = documents.load(body, form=Form.JSON, name=f"the answer of {self.mediator}")
        except DocumentError as error:
            self._end(Failed("not-understood", str(error), "see that both are of the same version"))
            return
        if performative == "inform" and isinstance(document, Comparison):
            if not self.result.done():
                self.result.set_result(document)
        elif isinstance(document, Problem):
            self._end(Failed.of(document))
        else:
            said = f"{self.mediator} answers {performative!r} with a {document.tag}"
            self._end(Failed("not-understood", said, "see that both are of the same version"))

    def _end(self, failed: Failed) -> None:
        if not self.result.done():
            self.result.set_exception(failed)
