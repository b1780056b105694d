"""Links: how an agent reaches other agents. The agents themselves are the same on every link."""

from __future__ import annotations

import asyncio
import copy
from typing import Protocol

from spade.agent import Agent
from spade.behaviour import CyclicBehaviour
from spade.container import Container
from spade.message import Message

from agency.problems import refuse


class Link(Protocol):
    """A way for agents to reach each other."""

    async def connect(self, agent: Agent) -> None:
        """Make the agent reachable under its JID."""

    async def disconnect(self, agent: Agent) -> None:
        """Make the agent unreachable."""

    async def send(self, message: Message, behaviour: CyclicBehaviour) -> None:
        """Deliver the message, or raise: nothing is lost silently."""


class InProcessLink:
    """Agents of one process pass each other messages directly, through SPADE's container: the embedded default."""

    def __init__(self) -> None:
        # SPADE's container is one for the process and remembers the event loop that it first saw. It also makes
        # uvloop's policy the process's, under which the loop that runs could not start another process.
        policy = asyncio.get_event_loop_policy()
        self._container = Container()
        self._container.reset()
        asyncio.set_event_loop_policy(policy)

    async def connect(self, agent: Agent) -> None:
        """See :class:`Link`."""
        self._container.register(agent)

    async def disconnect(self, agent: Agent) -> None:
        """See :class:`Link`."""
        self._container.unregister(str(agent.jid))

    async def send(self, message: Message, behaviour: CyclicBehaviour) -> None:
        """See :class:`Link`. The receiver gets a copy: what it does to the message is its own affair."""
        if not self._container.has_agent(str(message.to)):
            raise refuse(
                "no-such-agent", f"there is no agent {message.to}", "check that the agency runs all its agents"
            )
        await self._container.send(copy.deepcopy(message), behaviour)
