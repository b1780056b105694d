"""FIPA Request (SC00026H): ask an agent for an action; it refuses, or agrees and later informs of the result or the
failure.

A link may lose what is under way. So the initiator says its request again, at growing intervals and when the link was
lost and is there again, until it has the result; the participant that hears a request again repeats its last answer,
and does nothing twice. A participant whose process began anew does not know the request any more and acts on it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from slixmpp import JID
from spade.message import Message

from agency.messaging.acl import (
    NotUnderstood,
    Performative,
    Protocol,
    answer,
    compose,
    content_of,
    is_bounce,
    performative_of,
)
from agency.messaging.agent import RoleAgent
from agency.messaging.conversations import repeating
from agency.problems import AgencyError, problem_of, refuse
from descriptors.base import Document, new_id
from descriptors.messages import Problem

D = TypeVar("D", bound=Document)
Handlers = Mapping[type[Document], Callable[[Any], Awaitable[Document]]]
"""What to do with a request, by the type of the document that asks for it."""
Allowed = Callable[[JID, Document], bool]
"""Whether an agent may ask for that."""

AGREE_WITHIN = 30.0
"""Seconds in which an agent must say whether it will act; how long the action then takes is its own affair."""
GIVE_UP_AFTER = 300.0
"""Seconds for which an agent that has agreed may be out of reach."""
KEEP_FOR = 600.0
"""Seconds for which a result is kept, to be repeated."""


class Responder:
    """The participant's side: hands each request to the handler for its type of content."""

    def __init__(self, agent: RoleAgent, handlers: Handlers, allowed: Allowed) -> None:
        """See :meth:`install`."""
        self._agent = agent
        self._handlers = handlers
        self._allowed = allowed
        self._said: dict[tuple[str, str], Message] = {}
        self._over: deque[tuple[float, tuple[str, str]]] = deque()

    @classmethod
    def install(cls, agent: RoleAgent, handlers: Handlers, allowed: Allowed | None = None) -> None:
        """Let the agent answer requests.

        ``handlers``: what to do, by the type of the document that asks for it. ``allowed``: who may ask for what, by
        default whoever is of the same site: that a message comes from whom it says, the servers vouch for.
        """
        agent.take_part(Protocol.REQUEST, cls(agent, handlers, allowed or own_site(agent)).on_message)

    async def on_message(self, message: Message) -> None:
        """Agree, act, and report; repeat what was said last, if the request was heard before."""
        if message.get_metadata("performative") != Performative.REQUEST.value:
            self._agent.log.info("nobody waits for this", sender=str(message.sender), protocol=Protocol.REQUEST.value)
            return
        key = message.sender.bare, message.thread or ""
        if said := self._said.get(key):
            await self._say(said)
            return
        try:
            content = content_of(message, *self._handlers)
        except NotUnderstood as error:
            await self._say(answer(message, Performative.NOT_UNDERSTOOD, problem_of(error)))
            return
        if not self._allowed(message.sender, content):
            self._agent.log.warning("request refused", sender=str(message.sender), asked=content.tag)
            await self._say(answer(message, Performative.REFUSE, _not_allowed(message.sender)))
            return
        self._said[key] = answer(message, Performative.AGREE)
        await self._say(self._said[key])
        try:
            result = answer(message, Performative.INFORM, await self._handlers[type(content)](content))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the asker must hear of it
            result = answer(message, Performative.FAILURE, problem_of(error))
        self._said[key] = result
        self._forget_after(key)
        await self._say(result)

    def _forget_after(self, key: tuple[str, str]) -> None:
        """Keep a result for a while; forget those that were kept long enough."""
        now = time.monotonic()
        self._over.append((now + KEEP_FOR, key))
        while self._over and self._over[0][0] < now:
            del self._said[self._over.popleft()[1]]

    async def _say(self, message: Message) -> None:
        try:
            await self._agent.send(message)
        except AgencyError as error:  # the asker will ask again
            self._agent.log.warning("answer not sent", to=str(message.to), problem=error.problem.message)


def own_site(agent: RoleAgent) -> Allowed:
    """Whoever is of the agent's own site."""
    return lambda sender, _: bool(sender.domain == agent.jid.domain)


def _not_allowed(sender: JID) -> Problem:
    return Problem(
        code="not-allowed", message=f"{sender.bare} may not ask for that here", remedy="ask the operator of this agency"
    )


class _Initiator:
    """Waits for the answers of one agent to one request."""

    def __init__(self, request: Message) -> None:
        self._request = request
        self._repeated = False
        self._out_of_reach_since: float | None = None
        self.bounce: Message | None = None
        """The latest word that the agent was not reached, if it has not been heard since."""
        self.agreed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.result: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def on_message(self, message: Message) -> None:
        """Take an answer, if it is from whom was asked."""
        if message.sender.bare != self._request.to.bare:
            return
        if is_bounce(message):
            self._bounced(message)
            return
        self.bounce = self._out_of_reach_since = None
        if not self.agreed.done():
            self.agreed.set_result(None)
        if message.get_metadata("performative") != Performative.AGREE.value:
            self._end(message)

    def _bounced(self, message: Message) -> None:
        """An agent that is out of reach at once is that; one that was in reach may come back."""
        now = time.monotonic()
        self.bounce = message
        if self._out_of_reach_since is None:
            self._out_of_reach_since = now
        if self.agreed.done():
            if now - self._out_of_reach_since > GIVE_UP_AFTER:
                self._end(message)
        elif not self._repeated:
            self.agreed.set_result(None)
            self._end(message)

    def _end(self, message: Message) -> None:
        if not self.result.done():
            self.result.set_result(message)

    def unanswered(self) -> list[Message]:
        """The request, to be said once more."""
        self._repeated = True
        return [self._request]


def result_in(reply: Message, expect: type[D]) -> D:
    """The document that an ``inform`` brings; :class:`AgencyError` with the problem that anything else brings."""
    try:
        if performative_of(reply) is Performative.INFORM:
            return content_of(reply, expect)
        problem = content_of(reply, Problem)
    except NotUnderstood as error:
        raise AgencyError(problem_of(NotUnderstood(f"the answer of {reply.sender}: {error}"))) from None
    raise AgencyError(problem)


async def ask(agent: RoleAgent, to: str, content: Document, expect: type[D]) -> D:
    """Ask ``to`` for an action and wait for its result.

    Raises :class:`AgencyError` with the other agent's problem when it refuses, fails or does not answer.
    """
    conversation = new_id("talk")
    request = compose(to, Performative.REQUEST, Protocol.REQUEST, conversation, content)
    initiator = _Initiator(request)
    async with repeating(agent, conversation, initiator.on_message, initiator.unanswered):
        await agent.send(request)
        try:
            async with asyncio.timeout(AGREE_WITHIN):
                await initiator.agreed
        except TimeoutError:
            if initiator.bounce is not None:
                return result_in(initiator.bounce, expect)
            raise refuse("no-answer", f"{to} does not answer", "check that the agent runs, then try again") from None
        return result_in(await initiator.result, expect)
