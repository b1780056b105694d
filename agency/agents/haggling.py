"""One negotiation of the broker's: rounds with all vendors at once, as a strategy of :mod:`broker.negotiation` says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import Heard, Initiator
from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.strategies import check_strategy, strategies
from broker.comparison import Answer
from broker.negotiation import (
    Accept,
    Counter,
    GiveUp,
    History,
    Limits,
    Scale,
    closing,
    next_move,
    usual_limits,
)
from broker.terms import changes, value
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.messages import Request
from descriptors.negotiation import Mandate, Negotiation, Outcome, Turn
from descriptors.resources import Reason
from descriptors.sla import AgreementTemplate, CounterOffer, Offer, Refusal

TEMPLATE_WITHIN = 5.0
"""Seconds in which a vendor must send the template that its offer names, to be negotiated with."""


@dataclass
class _Vendor:
    """Where the negotiation with one vendor stands."""

    name: str
    said: Heard | None = None
    """Its latest offer."""
    offers: list[Offer] = field(default_factory=list)
    counters: list[CounterOffer] = field(default_factory=list)
    """What it has answered with another offer."""
    limits: Limits | None = None
    template: AgreementTemplate | None = None
    answer: Answer | None = None
    """What it came to."""
    why: Reason | None = None


class Haggling:
    """From the call to the last offers: :meth:`run`, then :meth:`answers`, :meth:`standing` and :meth:`record`."""

    def __init__(
        self, agent: RoleAgent, net: Initiator, call: CallForProposals, mandate: Mandate, names: Mapping[str, str]
    ) -> None:
        """With the vendors of those names, by JID, until the call's deadline. Refused where there is no such
        strategy."""
        self._strategies = strategies()
        check_strategy(mandate.strategy)
        self._agent = agent
        self._net = net
        self._call = call
        self._mandate = mandate
        self._vendors = {jid: _Vendor(name) for jid, name in names.items()}
        self._began = utc_now()
        self._round = 1
        self._turns: list[Turn] = []

    # --- the rounds ---

    async def run(self) -> None:
        """Ask everybody; then make counter-offers as long as there is somebody to make one to."""
        call = self._call
        heard = await self._net.ask(call.id, dict.fromkeys(self._vendors, call), self._reply_by(), self._round)
        self._hear_first(heard)
        await asyncio.gather(*(self._ask_for_template(jid) for jid in self._vendors))
        while True:
            reply_by = self._reply_by()
            # in a thread: a thousand vendors take a second of thinking
            counters = await asyncio.to_thread(self._counters, reply_by)
            if not counters:
                break
            self._round += 1
            self._hear(counters, await self._net.ask(call.id, counters, reply_by, self._round))

    def _reply_by(self) -> datetime:
        """The deadline of the next round: the time that is left is for all that there may still be."""
        now, left = utc_now(), self._mandate.rounds + 2 - self._round
        return now + max(self._call.reply_by - now, timedelta(0)) / max(left, 1)

    def _hear_first(self, heard: Mapping[str, Heard]) -> None:
        for jid, each in heard.items():
            vendor = self._vendors[jid]
            self._note(vendor, each)
            if isinstance(each.answer, Offer):
                vendor.said, vendor.offers = each, [each.answer]
                limits = usual_limits(each.answer, self._call, self._began, self._call.reply_by)
                vendor.limits = self._bounded(limits, each.answer)
            else:
                reasons = each.answer.reasons if isinstance(each.answer, Refusal) else (each.answer,)
                vendor.answer, vendor.why = each.answer, reasons[0]

    def _bounded(self, limits: Limits, first: Offer) -> Limits:
        mandate = self._mandate
        scales = dict(limits.scales)
        if self._call.purpose == "relocation":  # it takes a while until a plan is looked at and applied
            valid = value(first, "validity-seconds") or Decimal(0)
            scales["validity-seconds"] = Scale(best=2 * valid, worst=valid, weight=0.1)
        budgets = [budget for budget in (limits.budget, mandate.budget) if budget is not None]
        return replace(
            limits, scales=scales, strategy=mandate.strategy, rounds=mandate.rounds, budget=min(budgets, default=None),
            commit_days=mandate.commit_days,
        )  # fmt: skip

    async def _ask_for_template(self, jid: str) -> None:
        """What the vendor negotiates: the template that its signed offer names, and no other."""
        vendor = self._vendors[jid]
        named = vendor.offers[0].template if vendor.offers else None
        if named is None:
            return
        try:
            async with asyncio.timeout(TEMPLATE_WITHIN):
                request = Request(action="template", subject=named.id)
                template = await ask(self._agent, jid, request, AgreementTemplate)
        except (AgencyError, TimeoutError) as error:
            self._agent.log.warning("no template", vendor=vendor.name, error=str(error))
            return
        if digest(template) == named.digest:
            vendor.template = template

    def _counters(self, reply_by: datetime) -> dict[str, CounterOffer]:
        """What to say to whom in the next round; settles with the others."""
        found: dict[str, CounterOffer] = {}
        for jid, vendor in self._vendors.items():
            if vendor.answer is not None or vendor.limits is None:
                continue
            history, now = self._history(vendor), utc_now()
            if vendor.template is None:
                self._settle(vendor, closing(history, vendor.limits, now), _NOT_OPEN)
                continue
            move = next_move(
                history, vendor.limits, now, reply_by=reply_by, template=vendor.template, strategies=self._strategies
            )
            if isinstance(move, Counter):
                found[jid] = move.counter
                self._turns.append(self._asking(vendor, move.counter, move.why))
            else:
                self._settle(vendor, move)
        return found

    def _history(self, vendor: _Vendor) -> History:
        return History(self._call, tuple(vendor.offers), tuple(vendor.counters))

    def _hear(self, counters: Mapping[str, CounterOffer], heard: Mapping[str, Heard]) -> None:
        for jid, each in heard.items():
            vendor = self._vendors[jid]
            self._note(vendor, each)
            if isinstance(each.answer, Offer):
                vendor.said = each
                vendor.offers.append(each.answer)
                vendor.counters.append(counters[jid])
            elif vendor.limits is not None:
                last = each.answer.reasons[0] if isinstance(each.answer, Refusal) else each.answer
                self._settle(vendor, closing(self._history(vendor), vendor.limits, utc_now()), last)

    def _settle(self, vendor: _Vendor, move: Accept | GiveUp, why: Reason | None = None) -> None:
        """The last word; ``why`` it comes now, where the move itself does not say."""
        vendor.answer = move.offer if isinstance(move, Accept) else move.why
        vendor.why = why if why is not None and isinstance(move, Accept) else move.why

    # --- what came of it ---

    def answers(self) -> dict[str, Answer]:
        """By the vendors' names: the offer that may be accepted, or why there is none."""
        return {vendor.name: vendor.answer for vendor in self._vendors.values() if vendor.answer is not None}

    def standing(self) -> dict[str, Heard]:
        """The offers that may be accepted, as they were heard, by JID."""
        return {
            jid: vendor.said
            for jid, vendor in self._vendors.items()
            if vendor.said is not None and vendor.answer == vendor.said.answer
        }

    def answered(self) -> list[CounterOffer]:
        """The counter-offers that these offers answer: they are signed with their digests, so proofs need them."""
        standing = [self._vendors[jid] for jid in self.standing()]
        return [vendor.counters[-1] for vendor in standing if vendor.counters]

    def came_late(self, jid: str) -> None:
        """Note an answer that came after its round."""
        if vendor := self._vendors.get(jid):
            self._turns.append(Turn(at=utc_now(), round=self._round, vendor=vendor.name, act="too-late"))

    def record(self) -> Negotiation:
        """The timeline."""
        return Negotiation(
            call=self._call.id,
            application=self._call.application,
            purpose=self._call.purpose,
            strategy=self._mandate.strategy,
            currency=self._call.requirements.currency,
            budget=self._mandate.budget,
            began=self._began,
            ended=utc_now(),
            deadline=self._call.reply_by,
            rounds=self._round,
            turns=tuple(sorted(self._turns, key=lambda turn: turn.at)),
            outcomes=tuple(_outcome(vendor) for vendor in self._vendors.values()),
        )

    def _note(self, vendor: _Vendor, heard: Heard) -> None:
        answer, turn = heard.answer, Turn(at=heard.at, round=self._round, vendor=vendor.name, act="offer")
        if isinstance(answer, Offer):
            price = answer.price
            said = {"document": answer.id, "price_per_hour": price.per_hour, "minimum_days": price.minimum_days}
        elif isinstance(answer, Refusal):
            said = {"act": "refusal", "reason": answer.reasons[0]}
        else:
            said = {"act": "silence" if answer.code == "no-answer" else "refusal", "reason": answer}
        self._turns.append(turn.model_copy(update=said))

    def _asking(self, vendor: _Vendor, counter: CounterOffer, why: Reason) -> Turn:
        wanted = changes(counter)
        days = wanted.get("minimum-days")
        return Turn(
            at=counter.issued,
            round=self._round + 1,
            vendor=vendor.name,
            act="counter-offer",
            document=counter.id,
            price_per_hour=wanted.get("price-per-hour"),
            minimum_days=int(days) if days else None,
            changes=counter.changes,
            reason=why,
        )


_NOT_OPEN = Reason(code="not-negotiable", message="publishes nothing that could be negotiated")


def _outcome(vendor: _Vendor) -> Outcome:
    accepted = vendor.answer if isinstance(vendor.answer, Offer) else None
    return Outcome(
        vendor=vendor.name,
        result="offer" if accepted else "none",
        offer=accepted.id if accepted else None,
        first_per_hour=vendor.offers[0].price.per_hour if vendor.offers else None,
        last_per_hour=vendor.offers[-1].price.per_hour if vendor.offers else None,
        rounds=len(vendor.counters),
        why=vendor.why or _NOT_OPEN,
    )
