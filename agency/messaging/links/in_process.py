"""The in-process link: agents of one process pass each other messages directly. The embedded default; no server."""

from __future__ import annotations

from slixmpp import JID
from spade.message import Message

from agency.messaging.links import Resident
from agency.problems import refuse
from agency.settings import DOMAIN


class InProcessLink:
    """A :class:`~agency.messaging.links.Link` that is a table of the agents of this process."""

    def __init__(self, domain: str = DOMAIN) -> None:
        """``domain``: of the agents' addresses, which means nothing outside the process."""
        self._domain = domain
        self._agents: dict[str, Resident] = {}
        self._announced: dict[str, set[str]] = {}

    def address(self, name: str) -> str:
        """See :class:`~agency.messaging.links.Link`."""
        return str(JID(f"{name}@{self._domain}"))

    async def connect(self, agent: Resident) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        self._agents[agent.jid.bare] = agent

    async def disconnect(self, agent: Resident) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        self._agents.pop(agent.jid.bare, None)
        for to in self._announced.pop(agent.jid.bare, ()):
            if watcher := self._agents.get(to):
                watcher.saw(agent.jid, there=False)

    async def announce(self, agent: Resident, to: str) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        if watcher := self._agents.get(to):
            self._announced.setdefault(agent.jid.bare, set()).add(to)
            watcher.saw(agent.jid, there=True)

    async def send(self, message: Message) -> None:
        """See :class:`~agency.messaging.links.Link`. The receiver gets a copy: what it does to it is its own affair."""
        agent = self._agents.get(message.to.bare)
        if agent is None:
            remedy = "check that the agency runs all its agents"
            raise refuse("no-such-agent", f"there is no agent {message.to}", remedy)
        parameters = dict(message._metadata)  # SPADE has no way to see them all
        agent.dispatch(Message(message.to, message.sender, message.body, message.thread, parameters))
