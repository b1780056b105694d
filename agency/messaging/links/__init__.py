"""Links: how an agent reaches other agents. The agents themselves are the same on every link."""

from __future__ import annotations

from typing import Protocol

from slixmpp import JID
from spade.message import Message

from agency.problems import AgencyError
from descriptors.messages import Problem


class Resident(Protocol):
    """What a link needs of an agent that lives on it."""

    jid: JID

    def dispatch(self, msg: Message) -> object:
        """Take a message that came for this agent; never raises, and never waits."""

    def reconnected(self) -> None:
        """Learn that the way to others was lost and is there again: what was under way may not have arrived."""

    def saw(self, whom: JID, *, there: bool) -> None:
        """Learn that an agent, which has announced itself to this one, is there, or is there no more."""


class Link(Protocol):
    """A way for agents to reach each other."""

    def address(self, name: str) -> str:
        """The JID of the agent of that name at this site."""

    async def connect(self, agent: Resident) -> None:
        """Make the agent reachable under its JID; :class:`~agency.problems.AgencyError` if it cannot be."""

    async def disconnect(self, agent: Resident) -> None:
        """Make the agent unreachable; whom it has announced itself to learns of it."""

    async def announce(self, agent: Resident, to: str) -> None:
        """Tell ``to`` (JID) that the agent is there: directed presence (RFC 6121, 4.6). It will be told when the agent
        is there no more, by the server if nobody else can. :class:`~agency.problems.AgencyError` as of :meth:`send`."""

    async def send(self, message: Message) -> None:
        """Send the message on its way; :class:`~agency.problems.AgencyError` if it is known that it cannot arrive.

        What turns out later to have failed comes back to the sender as a FIPA ``failure`` in the same conversation.
        """


def unreachable(whom: str, why: str) -> AgencyError:
    """The error of a link that cannot send now, and may soon."""
    return AgencyError(
        Problem(
            code="server-unreachable",
            message=f"the XMPP server is not reached ({whom}): {why}",
            remedy="see that it runs and that AGENCY_SERVER is its address; what is under way goes on when it is back",
            retryable=True,
        )
    )
