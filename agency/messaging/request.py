"""FIPA Request (SC00026H): ask an agent for an action; it refuses, or agrees and later informs of the result or the
failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from spade.message import Message

from agency.messaging.acl import NotUnderstood, Performative, Protocol, answer, compose, content_of, performative_of
from agency.messaging.agent import RoleAgent
from agency.problems import AgencyError, problem_of, refuse
from descriptors.base import Document, new_id
from descriptors.messages import Problem

D = TypeVar("D", bound=Document)
Handlers = Mapping[type[Document], Callable[[Any], Awaitable[Document]]]
"""What to do with a request, by the type of the document that asks for it."""

AGREE_WITHIN = 10.0
"""Seconds in which an agent must say whether it will act; how long the action then takes is its own affair."""


class Responder:
    """The participant's side: hands each request to the handler for its type of content."""

    def __init__(self, agent: RoleAgent, handlers: Handlers) -> None:
        """``handlers``: what to do, by the type of the document that asks for it."""
        self._agent = agent
        self._handlers = handlers

    @classmethod
    def install(cls, agent: RoleAgent, handlers: Handlers) -> None:
        """Let the agent answer requests."""
        agent.take_part(Protocol.REQUEST, cls(agent, handlers).on_message)

    async def on_message(self, message: Message) -> None:
        """Agree, act, and report."""
        if message.get_metadata("performative") != Performative.REQUEST.value:
            self._agent.log.info("nobody waits for this", sender=str(message.sender), protocol=Protocol.REQUEST.value)
            return
        try:
            content = content_of(message, *self._handlers)
        except NotUnderstood as error:
            await self._agent.send(answer(message, Performative.NOT_UNDERSTOOD, problem_of(error)))
            return
        await self._agent.send(answer(message, Performative.AGREE))
        try:
            result = await self._handlers[type(content)](content)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the asker must hear of it
            await self._agent.send(answer(message, Performative.FAILURE, problem_of(error)))
        else:
            await self._agent.send(answer(message, Performative.INFORM, result))


class _Initiator:
    def __init__(self) -> None:
        self.agreed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.result: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def on_message(self, message: Message) -> None:
        if not self.agreed.done():
            self.agreed.set_result(None)
        if message.get_metadata("performative") != Performative.AGREE.value and not self.result.done():
            self.result.set_result(message)


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
    initiator = _Initiator()
    with agent.listening(conversation, initiator.on_message):
        await agent.send(compose(to, Performative.REQUEST, Protocol.REQUEST, conversation, content))
        try:
            async with asyncio.timeout(AGREE_WITHIN):
                await initiator.agreed
        except TimeoutError:
            raise refuse("no-answer", f"{to} does not answer", "check that the agent runs, then try again") from None
        return result_in(await initiator.result, expect)
