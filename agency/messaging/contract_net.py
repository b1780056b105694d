"""FIPA Iterated Contract Net (SC00030H), the initiator's side: how the broker calls, and settles with one vendor.

A round ends when all have answered, at its deadline at the latest. Who missed the last deadline is asked, and not
waited for until it answers again. Acceptance is separate and comes when the deployer has decided: in the same
conversation, whose id is the call's.

At most one agreement comes of a call, and both sides know of it. An acceptance is written down before it is sent, and
repeated until it is answered. Where the offer expires before that, or the deployer would rather accept another one, it
is withdrawn by a ``cancel``, which is repeated until the vendor has heard it; a vendor that had agreed ends its
agreement then. Before that no other offer of the call is accepted: not even a message that came back proves that the
vendor has not agreed, as servers return what they brought and had not seen acknowledged. A vendor at another site is
told in the same way that an agreement has ended that was carried out.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from spade.message import Message

from agency.messaging.acl import (
    NotUnderstood,
    Performative,
    Protocol,
    Said,
    content_of,
    is_bounce,
    message_of,
    performative_of,
    said_in,
    saying,
)
from agency.messaging.agent import Job, RoleAgent
from agency.messaging.conversations import Asked, Conversation, Conversations, Kept, State, repeating, reply_with
from agency.messaging.speech import Speech
from agency.problems import AgencyError, problem_of, refuse
from agency.trust.signing import Signed, Untrusted
from agency.trust.site import Site
from descriptors.base import Document, new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.messages import Problem
from descriptors.resources import Reason
from descriptors.sla import Agreement, Offer, Refusal, ends
from descriptors.trust import Acceptance, Delegation

Answer = Offer | Refusal | Reason

SETTLE_WITHIN = 30.0
"""Seconds that who asks for an acceptance waits for the vendor's answer. The acceptance goes on after that."""
OVERDUE_ROUNDS = 100
"""Rounds whose late answers are still told from those that come twice."""
WITHDRAW_WITHIN = timedelta(days=7)
"""How long a vendor that cannot be reached is told that an acceptance is withdrawn."""
_ACCEPTANCE, _CALL, _CANCEL = Asked(1, 1), Asked(0, 1), Asked(3, 1)


class Heard(NamedTuple):
    """What came of asking a vendor, and when."""

    answer: Answer
    at: datetime
    said: Said | None = None
    """An offer as the vendor said it."""


_UNREAD = Heard(Reason(code="no-answer", message="has not been read yet"), datetime.min.replace(tzinfo=UTC))


class _Settlement:
    """An acceptance under way. To be made where an event loop runs."""

    def __init__(self, offer: Offer, peer: str) -> None:
        self.call, self.peer, self.application = offer.call, peer, offer.application
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Agreement] = self._loop.create_future()
        self.given_up: asyncio.Future[None] = self._loop.create_future()
        """Done when nobody wants the agreement any more: the acceptance is withdrawn, unless it is answered already."""
        self.withdrawing: asyncio.Task[None] | None = None
        """Until the vendor has confirmed that it is withdrawn."""
        self.waiting = 0
        """How many wait for the outcome now."""
        self._unreached: asyncio.Future[None] = self._loop.create_future()

    def not_reached(self, problem: Problem) -> None:
        """What was said to the vendor came back. Only that it is not there makes waiting vain."""
        if problem.code == "no-such-agent" and not self._unreached.done():
            self._unreached.set_result(None)

    def stands_in_the_way_of(self, offer: Offer, jid: str) -> bool:
        """Whether it is another one of the same application."""
        return self.application == offer.application and (self.call, self.peer) != (offer.call, jid)

    def give_up(self) -> None:
        """Have it withdrawn, unless it is answered already."""
        if not self.given_up.done():
            self.given_up.set_result(None)
        self._unreached = self._loop.create_future()  # what counts from now on is whether that is heard

    async def wait_for(self, what: asyncio.Future[Any]) -> str:
        """Wait until that is done, and no longer than the vendor may be hoped for; gives why it is not done."""
        unreached = self._unreached
        self.waiting += 1
        try:
            await asyncio.wait({what, unreached}, timeout=SETTLE_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.waiting -= 1
        if unreached.done() and unreached is self._unreached:
            self._unreached = self._loop.create_future()  # it may be there by the time that somebody asks again
        return "" if what.done() else "cannot be reached" if unreached.done() else "does not answer"


class Initiator:
    """Asks vendors in rounds, and settles with at most one a call."""

    def __init__(
        self,
        agent: RoleAgent,
        site: Site,
        conversations: Conversations,
        late: Callable[[Message], Job | None] = lambda _: None,
    ) -> None:
        """Speaks in the agent's name; ``site`` lets it sign. ``late`` is told of each answer that came when its round
        was over."""
        self._agent = agent
        self._name = str(agent.jid)
        self._site = site
        self._speech = Speech(self._name, site)
        self._conversations = conversations
        self._late = late
        self._missed: set[str] = set()
        self._overdue: OrderedDict[tuple[str, str], set[str]] = OrderedDict()
        self._settling: dict[str, _Settlement] = {}
        agent.take_part(Protocol.CONTRACT_NET, self._unawaited)

    def take_up(self) -> None:
        """Go on with what an earlier process left: finish its acceptances, cancel its calls, which nobody waits for."""
        for left in self._conversations.open(self._name):
            if left.state == "accepting" and (offer := self._still_offered(left)):
                settlement = _Settlement(offer, left.peer)
                self._settle(settlement, self._carried_through(left, settlement, sent_before=True))
            elif left.state == "accepting":
                self._agent.work(self._withdraw(left))
            elif left.state in ("withdrawing", "ending"):
                self._agent.work(self._withdrawn(left))
            elif left.said is not None:
                self._agent.work(self._cancelled(left, left.said.body.split()))

    def _still_offered(self, left: Conversation) -> Offer | None:
        """The offer; None if it is not believed any more, because its site is no longer trusted."""
        try:
            return self._offer_in(left)
        except Untrusted as error:
            self._agent.log.warning("acceptance withdrawn", peer=left.peer, conversation=left.id, reason=str(error))
            return None

    # --- calling ---

    @asynccontextmanager
    async def calling(self, call: CallForProposals, vendors: Iterable[str]) -> AsyncIterator[None]:
        """Around all rounds of a call to these vendors (JIDs). Should the process die meanwhile, the next one cancels
        the call."""
        conversation = Conversation(
            self._name, call.id, "", "initiator", Protocol.CONTRACT_NET, "calling", _CALL, call.reply_by,
            expires=call.reply_by, said=Said(Performative.CFP, "json", " ".join(vendors)),
        )  # fmt: skip
        await self._conversations.keep([conversation])
        yield
        await self._conversations.end(conversation)

    async def ask(
        self, call: str, wanted: Mapping[str, Document], reply_by: datetime, number: int = 1
    ) -> dict[str, Heard]:
        """One round: tell each vendor (JID) what is wanted of it; what came of each, by JID, in the same order.

        Ends when all have answered, at the latest at ``reply_by``; for the silent there is a reason that says so.
        ``number``: of the round, from 1.
        """
        messages = _cfps(call, wanted, reply_by, number)
        round_ = _Round(reply_with(Performative.CFP, number), wanted, self._missed, self._speech, self._unawaited)
        async with repeating(self._agent, call, round_.on_message, lambda: map(messages.get, round_.unanswered())):
            await self._say(messages, round_, reply_by)
            await round_.over(reply_by)
        silent = set(round_.unanswered())
        self._missed = (self._missed | silent) - round_.heard.keys()
        if silent:
            self._overdue[call, round_.name] = silent
            if len(self._overdue) > OVERDUE_ROUNDS:
                self._overdue.popitem(last=False)
        return round_.result()

    async def _say(self, messages: Mapping[str, Message], round_: _Round, reply_by: datetime) -> None:
        """Send them, by JID; no longer than until that moment, should the server take nothing any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout((reply_by - utc_now()).total_seconds()):
                for jid, message in messages.items():
                    try:
                        await self._agent.send(message)
                    except AgencyError as error:
                        round_.settle(jid, _reason(error.problem))

    async def stand(self, call: str, heard: Mapping[str, Heard]) -> None:
        """Keep the offers (by JID) as the ones that may be accepted."""
        standing = [
            Conversation(
                self._name, call, jid, "initiator", Protocol.CONTRACT_NET, "offered", _CALL, each.answer.expires,
                expires=each.answer.expires, heard=each.said,
            )
            for jid, each in heard.items() if isinstance(each.answer, Offer)
        ]  # fmt: skip
        await self._conversations.keep(standing)

    async def cancel(self, call: str, vendors: Iterable[str]) -> None:
        """Tell the vendors (JIDs) that nothing more comes of a call: they forget their offers."""
        await self._tell(call, vendors, Performative.CANCEL)

    async def call_off(self, call: str) -> None:
        """End a call whose answers nobody has seen yet: whoever it went to hears of it, and no offer is accepted."""
        known = await self._conversations.find(self._name, call)
        calling = known.pop("", None)
        await self.cancel(call, calling.said.body.split() if calling and calling.said else known)
        for each in known.values():
            each.state = "cancelled"
        await self._conversations.keep(known.values())
        if calling is not None:
            await self._conversations.end(calling)

    def _unawaited(self, message: Message) -> Job | None:
        """What no round waits for: a late answer, or one that came in time, once more. Who sent it is there again, and
        is waited for the next time."""
        jid, name = message.sender.bare, message.get_metadata("in-reply-to") or ""
        self._missed.discard(jid)
        silent = self._overdue.get((message.thread or "", name), set())
        if jid not in silent:
            return None
        silent.remove(jid)
        return self._late(message)

    async def _cancelled(self, left: Conversation, vendors: Iterable[str]) -> None:
        await self.cancel(left.id, vendors)
        await self._conversations.end(left)

    async def _tell(self, call: str, vendors: Iterable[str], performative: Performative) -> None:
        """Say something to each, once: to tell them is a courtesy, as what they offered expires by itself."""
        for jid in vendors:
            said, name = saying(performative), reply_with(performative)
            try:
                await self._agent.send(message_of(said, jid, Protocol.CONTRACT_NET, call, reply_with=name))
            except AgencyError as error:
                self._agent.log.info("not told", peer=jid, what=performative.value, error=str(error))

    async def bidder(self, offer: Offer) -> str:
        """Who made the offer (its JID); refused where nobody did."""
        for jid, each in (await self._conversations.find(self._name, offer.call)).items():
            if jid and each.heard is not None and self._offered(each) == offer.id:
                return jid
        raise refuse("not-offered", f"{offer.vendor} never made this offer, or not of late", "ask for new offers")

    def _offered(self, conversation: Conversation) -> str | None:
        """The id of what was offered; None if it is not believed: what one vendor said must not be in others' way."""
        try:
            if conversation.state == "agreed":
                return self._agreement_in(conversation).offer
            return self._offer_in(conversation).id
        except Untrusted as error:
            self._agent.log.warning("offer not believed", peer=conversation.peer, reason=str(error))
            return None

    # --- settling ---

    async def accept(self, offer: Offer, jid: str, delegation: Signed[Delegation] | None = None) -> Agreement:
        """Accept the offer of the vendor at ``jid``; the other bidders are told that they were not chosen. With a
        ``delegation`` it is accepted on behalf of who signed that.

        Accepting an offer again gives the same agreement. :class:`AgencyError` when the vendor does not stand by its
        offer, and when it does not answer soon (``no-answer``), or cannot be reached at all: then it is still being
        told, and the same offer may be accepted again to learn of the outcome. Accepting another one of the same
        application then withdraws this acceptance.
        """
        await self._make_way(offer, jid)
        settlement = self._settling.get(offer.call)
        if settlement is None:
            settlement = _Settlement(offer, jid)
            self._settle(settlement, self._accepted(offer, settlement, delegation))
        if why := await settlement.wait_for(settlement.outcome):
            raise refuse(
                "no-answer",
                f"{jid} {why}; it is told until {offer.expires:%H:%M:%S %Z} that its offer is accepted",
                "accept the same offer again to learn what came of it, or another one: this one is withdrawn then",
            )
        return settlement.outcome.result()

    async def _make_way(self, offer: Offer, jid: str) -> None:
        """Withdraw whatever other acceptance of the application is under way. Refused where somebody waits for that,
        and where its vendor has agreed just now; where it is of the same call, and the vendor has not confirmed that it
        is withdrawn, :meth:`_accepted` refuses."""
        while rivals := [each for each in self._settling.values() if each.stands_in_the_way_of(offer, jid)]:
            for rival in rivals:
                if rival.waiting:
                    raise _settling_elsewhere(rival.peer)
                rival.give_up()
                await asyncio.wait({rival.outcome})
                if not rival.outcome.cancelled() and rival.outcome.exception() is None:
                    raise _settling_elsewhere(rival.peer)
                if rival.withdrawing is not None and rival.call == offer.call:
                    await rival.wait_for(rival.withdrawing)

    def _settle(self, settlement: _Settlement, acceptance: Coroutine[Any, Any, Agreement]) -> None:
        """Do it beside everything else: it goes on when nobody waits for it any more."""
        outcome = settlement.outcome

        async def settle() -> None:
            try:
                outcome.set_result(await acceptance)
            except Exception as error:  # noqa: BLE001 - for whoever waits
                outcome.set_exception(error)
                outcome.exception()  # seen, even if nobody does
            finally:
                outcome.cancel()
                del self._settling[settlement.call]

        self._settling[settlement.call] = settlement
        self._agent.work(settle())

    async def _accepted(
        self, offer: Offer, settlement: _Settlement, delegation: Signed[Delegation] | None
    ) -> Agreement:
        """Begin an acceptance and carry it through; the agreement there is, if the offer was accepted before."""
        jid, known = settlement.peer, await self._conversations.find(self._name, offer.call)
        for each in known.values():
            if each.state == "withdrawing":
                raise _not_confirmed(each.peer)
            if each.state == "agreed" and each.peer == jid and (made := self._agreement_in(each)).offer == offer.id:
                return made
            if each.state in ("agreed", "ending", "accepting"):
                raise _settling_elsewhere(each.peer)
        mine = known.get(jid)
        if mine is None or mine.heard is None or mine.state == "cancelled" or self._offer_in(mine) != offer:
            raise refuse("not-offered", f"{jid} never made this offer, or not of late", "ask for new offers")
        _check_not_expired(offer)
        mine.asked = Asked(1, mine.asked.number + 1) if mine.asked.rank == 1 else _ACCEPTANCE
        mine.state, mine.said = "accepting", await self._acceptance(offer, mine, delegation)
        await self._conversations.keep([mine])
        return await self._carried_through(mine, settlement, sent_before=False)

    async def _acceptance(
        self, offer: Offer, conversation: Conversation, delegation: Signed[Delegation] | None
    ) -> Said:
        """The acceptance as it is said; it is kept as a proof, and so is what it answers."""
        assert conversation.heard is not None  # noqa: S101 - it was looked at
        about = {"application": offer.application, "conversation": offer.call}
        offered = await self._speech.keep(conversation.heard, Offer, **about)
        if delegation is not None:
            await self._site.keep(delegation, **about)
        _check_not_expired(offer)  # once more: on a busy machine that took a while
        acceptance = Acceptance(
            id=new_id("acceptance"), application=offer.application, call=offer.call, offer=offer.id,
            offer_digest=offered.digest, accepted=utc_now(),
        )  # fmt: skip
        said = self._speech.bind(
            Performative.ACCEPT_PROPOSAL, acceptance, to=conversation.peer, expires=offer.expires,
            answers=[offered.digest, *([delegation.digest] if delegation else [])],
        )  # fmt: skip
        await self._speech.keep(said, Acceptance, **about)
        return said

    async def _carried_through(
        self, acceptance: Conversation, settlement: _Settlement, *, sent_before: bool
    ) -> Agreement:
        """Say that the offer is accepted until the vendor has answered; until the offer expires, or nobody wants it any
        more, at the longest."""
        assert acceptance.said is not None and acceptance.heard is not None  # noqa: PT018, S101
        message = self._message(acceptance, acceptance.said, Performative.ACCEPT_PROPOSAL)
        replies = _Replies(message, settlement.not_reached)
        async with repeating(self._agent, acceptance.id, replies.on_message, replies.unanswered):
            try:
                await self._agent.send(message)
            except AgencyError as error:
                if not sent_before:  # so the vendor cannot have heard of it
                    await self._ended(acceptance, "failed")
                    raise
                settlement.not_reached(error.problem)
            soonest = utc_now() + timedelta(seconds=SETTLE_WITHIN) if sent_before else acceptance.expires
            reply = await replies.first(max(soonest, acceptance.expires), settlement.given_up)
        if reply is None:
            await self._withdraw(acceptance, settlement)
            why = "before another offer was accepted" if settlement.given_up.done() else "before its offer expired"
            raise refuse(
                "no-answer",
                f"{acceptance.peer} did not answer {why}: the acceptance is withdrawn",
                "ask for new offers",
            )
        return await self._concluded(acceptance, reply)

    async def _concluded(self, acceptance: Conversation, reply: Message) -> Agreement:
        """The agreement in the vendor's answer, kept; what is none, or about something else, leads to no agreement."""
        try:
            if performative_of(reply) is not Performative.INFORM:
                problem = content_of(reply, Problem)
                await self._ended(acceptance, "failed")
                raise AgencyError(problem)
            assert acceptance.said is not None  # noqa: S101
            accepted = self._speech.recall(acceptance.said, Acceptance).digest
            agreement = self._speech.believe(reply, Agreement, accepted).document
            _check_about(agreement, self._offer_in(acceptance))
        except (NotUnderstood, Untrusted) as error:
            await self._withdraw(acceptance)
            remedy = "take another offer"
            raise refuse("agreement-differs", f"{acceptance.peer} confirms something else: {error}", remedy) from None
        acceptance.heard = said_in(reply)
        await self._speech.keep(
            acceptance.heard, Agreement, application=agreement.application, conversation=acceptance.id
        )
        await self._ended(acceptance, "agreed", Kept(agreement, agreement.id, agreement.application))
        self._agent.work(self._turn_down_others(acceptance.id))
        return agreement

    async def _turn_down_others(self, call: str) -> None:
        known = await self._conversations.find(self._name, call)
        others = [peer for peer, each in known.items() if each.state == "offered"]
        await self._tell(call, others, Performative.REJECT_PROPOSAL)

    async def _ended(self, acceptance: Conversation, state: State, *documents: Kept) -> None:
        acceptance.state = state
        await self._conversations.keep([acceptance], documents)

    # --- withdrawing ---

    async def tell_ended(self, has_ended: Callable[[Agreement], Awaitable[bool]]) -> None:
        """See to it that vendors at other sites learn which agreements have ended here. Those of our own site see it in
        the store; those of sites that are not trusted now are told when they are again."""
        for each in await self._conversations.agreed(self._name, but=self._agent.jid.domain):
            with suppress(Untrusted):
                if await has_ended(self._agreement_in(each)):
                    each.heard = None  # it binds nobody any more
                    await self._withdraw(each, state="ending")

    async def _withdraw(
        self, acceptance: Conversation, settlement: _Settlement | None = None, state: State = "withdrawing"
    ) -> None:
        """Decide that there is no agreement, or none any more, and see to it that the vendor learns of it."""
        acceptance.state, acceptance.asked, acceptance.said = state, _CANCEL, saying(Performative.CANCEL)
        acceptance.expires = utc_now() + WITHDRAW_WITHIN
        await self._conversations.keep([acceptance])
        withdrawing = self._agent.work(self._withdrawn(acceptance, settlement))
        if settlement is not None:
            settlement.withdrawing = withdrawing

    async def _withdrawn(self, acceptance: Conversation, settlement: _Settlement | None = None) -> None:
        assert acceptance.said is not None  # noqa: S101
        message = self._message(acceptance, acceptance.said, Performative.CANCEL)
        not_reached = settlement.not_reached if settlement else lambda _: None
        replies = _Replies(message, not_reached)
        async with repeating(self._agent, acceptance.id, replies.on_message, replies.unanswered):
            try:
                await self._agent.send(message)
            except AgencyError as error:
                self._agent.log.info("not told yet", peer=acceptance.peer, what="cancel", error=str(error))
                not_reached(error.problem)
            if await replies.first(acceptance.expires) is None:
                self._agent.log.error("does not know that there is no agreement", peer=acceptance.peer)
        await self._ended(acceptance, "cancelled")

    def _message(self, conversation: Conversation, said: Said, performative: Performative) -> Message:
        name = reply_with(performative, conversation.asked.number)
        return message_of(
            said, conversation.peer, Protocol.CONTRACT_NET, conversation.id, reply_by=conversation.expires,
            reply_with=name,
        )  # fmt: skip

    # --- reading ---

    def _offer_in(self, conversation: Conversation) -> Offer:
        assert conversation.heard is not None  # noqa: S101 - until there is an agreement, an offer is what was heard
        return self._speech.recall(conversation.heard, Offer).document

    def _agreement_in(self, conversation: Conversation) -> Agreement:
        assert conversation.heard is not None  # noqa: S101
        return self._speech.recall(conversation.heard, Agreement).document


class _Round:
    """Takes the first answer of each vendor, and knows when there is nobody left to wait for."""

    def __init__(
        self,
        name: str,
        wanted: Mapping[str, Document],
        missed: set[str],
        speech: Speech,
        unawaited: Callable[[Message], Job | None],
    ) -> None:
        self.name = name
        self._speech = speech
        self._unawaited = unawaited
        words = {key: digest(document) for key, document in {id(each): each for each in wanted.values()}.items()}
        self._wanted = {jid: words[id(document)] for jid, document in wanted.items()}
        self._waited = {jid for jid in self._wanted if jid not in missed} or set(self._wanted)
        self._unread: list[tuple[Message, datetime]] = []
        self._reader: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self.heard: dict[str, Heard] = {}
        self._check()

    def on_message(self, message: Message) -> Job | None:
        """Take an answer."""
        jid, answers = message.sender.bare, message.get_metadata("in-reply-to")
        if jid not in self._wanted or answers not in (None, self.name):
            return self._unawaited(message)
        if jid not in self.heard:
            self.heard[jid] = _UNREAD
            self._unread.append((message, utc_now()))
            if self._reader is None:
                self._reader = asyncio.create_task(self._read_all())
        return None

    async def _read_all(self) -> None:
        """Read in a thread, as verifying takes most of the time, and lets go of the interpreter meanwhile; what came
        since the last time is read together."""
        while self._unread:
            messages, self._unread = self._unread, []
            answers = await asyncio.to_thread(self._read_these, [message for message, _ in messages])
            for (message, at), answer in zip(messages, answers, strict=True):
                said = said_in(message) if isinstance(answer, Offer) else None
                self.heard[message.sender.bare] = Heard(answer, at, said)
                self._waited.discard(message.sender.bare)
            self._check()
        self._reader = None

    def _read_these(self, messages: list[Message]) -> list[Answer]:
        return [read(message, self._speech, self._wanted[message.sender.bare]) for message in messages]

    def settle(self, jid: str, reason: Reason) -> None:
        """There will be no answer, for that reason."""
        self.heard[jid] = Heard(reason, utc_now())
        self._waited.discard(jid)
        self._check()

    def _check(self) -> None:
        if not self._waited:
            self._over.set()

    async def over(self, reply_by: datetime) -> None:
        """Wait for the end of the round; what came in time is read to the end."""
        try:
            async with asyncio.timeout((reply_by - utc_now()).total_seconds()):
                await self._over.wait()
        except TimeoutError:
            pass
        if self._reader is not None:
            await self._reader

    def unanswered(self) -> list[str]:
        """Who has not answered."""
        return [jid for jid in self._wanted if jid not in self.heard]

    def result(self) -> dict[str, Heard]:
        """What came of everybody."""
        silent = Heard(Reason(code="no-answer", message="did not answer before the deadline"), utc_now())
        return {jid: self.heard.get(jid, silent) for jid in self._wanted}


class _Replies:
    """Waits for the peer's answer to one message."""

    def __init__(self, message: Message, not_reached: Callable[[Problem], None]) -> None:
        self._message = message
        self._not_reached = not_reached
        self._first: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def on_message(self, message: Message) -> None:
        """Take the answer; a bounce is none."""
        if is_bounce(message) and message.sender.bare == self._message.to.bare:
            self._not_reached(content_of(message, Problem))
            return
        name = self._message.get_metadata("reply-with")
        answers = message.sender.bare == self._message.to.bare and message.get_metadata("in-reply-to") == name
        if answers and not self._first.done():
            self._first.set_result(message)

    def unanswered(self) -> list[Message]:
        """The message, until it is answered."""
        return [] if self._first.done() else [self._message]

    async def first(self, until: datetime, given_up: asyncio.Future[None] | None = None) -> Message | None:
        """The answer; None if there is none until that moment, or until it is given up."""
        waiting: set[asyncio.Future[Any]] = {self._first, given_up} if given_up else {self._first}
        timeout = max(0.0, (until - utc_now()).total_seconds())
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return self._first.result() if self._first.done() else None


def _cfps(call: str, wanted: Mapping[str, Document], reply_by: datetime, number: int) -> dict[str, Message]:
    """The messages of a round, by JID. Many are told the same, which is put into words once."""
    words: dict[int, Said] = {}
    messages = {}
    for jid, document in wanted.items():
        said = words.get(id(document)) or words.setdefault(id(document), saying(Performative.CFP, document))
        name = reply_with(Performative.CFP, number)
        messages[jid] = message_of(said, jid, Protocol.CONTRACT_NET, call, reply_by=reply_by, reply_with=name)
    return messages


def read(message: Message, speech: Speech, answering: str) -> Answer:
    """What a vendor's answer to the document of that digest says; a reason where that is nothing that can be used."""
    try:
        performative = performative_of(message)
        if performative is Performative.PROPOSE:
            return speech.believe(message, Offer, answering, binding=False).document  # :meth:`Initiator.accept` recalls
        if performative is Performative.REFUSE:
            return content_of(message, Refusal)
        return _reason(content_of(message, Problem))
    except Untrusted as error:
        return _reason(error.problem)
    except NotUnderstood as error:
        return Reason(code="not-understood", message=str(error)[:1024])
    except Exception as error:  # noqa: BLE001 - whatever one vendor says, the round goes on
        return _reason(problem_of(error))


def _reason(problem: Problem) -> Reason:
    return Reason(code=problem.code, message=problem.message[:1024])


def _check_not_expired(offer: Offer) -> None:
    if offer.expires <= utc_now():
        raise refuse("expired", f"offer {offer.id} expired at {offer.expires:%H:%M:%S %Z}", "ask for new offers")


def _settling_elsewhere(peer: str) -> AgencyError:
    return refuse(
        "already-accepted",
        f"of this call, an offer of {peer} is accepted already, and no call leads to two agreements",
        "wait until that acceptance has been answered, or ask for new offers",
    )


def _not_confirmed(peer: str) -> AgencyError:
    return refuse(
        "already-accepted",
        f"of this call, an offer of {peer} was accepted and is withdrawn, which {peer} has not confirmed yet",
        "ask for new offers, of which one can be accepted at once; or accept again when it has confirmed",
    )


_AGREED = ("price", "allocations", "guarantees", "components", "move")
"""What an agreement takes over from its offer."""


def _check_about(agreement: Agreement, offer: Offer) -> None:
    """:class:`NotUnderstood` unless the agreement is about that offer, on its terms."""
    if (agreement.offer, agreement.offer_digest, agreement.provider) != (offer.id, digest(offer), offer.vendor):
        raise NotUnderstood("the agreement is about another offer")
    if any(getattr(agreement, term) != getattr(offer, term) for term in _AGREED):
        raise NotUnderstood("the agreement is on other terms than the offer")
    if (agreement.supersedes, agreement.expires) != (offer.supersedes, ends(agreement.agreed, offer.price)):
        raise NotUnderstood("the agreement replaces another one, or ends at another time, than the offer says")
