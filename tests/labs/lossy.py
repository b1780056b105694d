"""A link that loses, repeats and reorders messages as it is told to, until it is healed."""

from __future__ import annotations

from slixmpp import JID
from spade.message import Message

from agency.messaging.links import Resident


class LossyLink:
    """A :class:`~agency.messaging.links.Link` on which every message waits until its fate is decided."""

    def __init__(self) -> None:
        self._agents: dict[str, Resident] = {}
        self.under_way: list[Message] = []
        self.healed = False

    def address(self, name: str) -> str:
        """See :class:`~agency.messaging.links.Link`."""
        return str(JID(f"{name}@test"))

    async def connect(self, agent: Resident) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        self._agents[agent.jid.bare] = agent

    async def disconnect(self, agent: Resident) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        self._agents.pop(agent.jid.bare, None)

    async def announce(self, agent: Resident, to: str) -> None:
        """See :class:`~agency.messaging.links.Link`. Nobody is told."""

    async def send(self, message: Message) -> None:
        """See :class:`~agency.messaging.links.Link`. Whoever sends never learns what became of it."""
        if self.healed:
            self._arrive(message)
        else:
            self.under_way.append(message)

    def deliver(self, index: int) -> None:
        """One of those that are under way arrives, whichever came before it."""
        self._arrive(self.under_way.pop(index % len(self.under_way)))

    def repeat(self, index: int) -> None:
        """One arrives, and is under way still."""
        self._arrive(self.under_way[index % len(self.under_way)])

    def lose(self, index: int) -> None:
        """One never arrives."""
        self.under_way.pop(index % len(self.under_way))

    def heal(self) -> None:
        """What is under way is lost; from now on everything arrives, and everybody is told that the link is back."""
        self.under_way.clear()
        self.healed = True
        for agent in tuple(self._agents.values()):
            agent.reconnected()

    def _arrive(self, message: Message) -> None:
        if agent := self._agents.get(message.to.bare):
            parameters = dict(message._metadata)
            agent.dispatch(Message(message.to, message.sender, message.body, message.thread, parameters))
