"""The Mediator: the one agent a deployer talks to. Takes applications, has offers made, accepts, and passes work on."""

from __future__ import annotations

from datetime import timedelta

from agency import records
from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.links import Link
from agency.messaging.request import Responder, ask
from agency.problems import AgencyError, refuse
from agency.relocation.workshop import Workshop
from descriptors.application import Application
from descriptors.base import Document, new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison
from descriptors.deployment import Deployment
from descriptors.messages import Request
from descriptors.relocation import RelocationPlan, RelocationReceipt
from descriptors.sla import Agreement, Offer

LIVE = frozenset({"deploying", "running", "stopped"})
"""The states in which a deployment holds resources."""


async def live_deployment(workshop: Workshop, application: str) -> Deployment | None:
    """The application's deployment that holds resources; None if it has none."""
    deployments = await workshop.store.all(Deployment, application=application, newest_first=True)
    return next((deployment for deployment in deployments if deployment.status in LIVE), None)


class MediatorAgent(RoleAgent):
    """Asked with an application, it answers with a comparison of offers; asked with a request, it sees to it."""

    def __init__(self, jid: str, link: Link, workshop: Workshop, call_seconds: float) -> None:
        """``call_seconds``: how long vendors have to answer a call."""
        super().__init__(jid, link)
        self._workshop = workshop
        self._call_time = timedelta(seconds=call_seconds)

    async def setup(self) -> None:
        """Answer requests."""
        Responder.install(self, {Application: self.take, Request: self.see_to})

    async def take(self, application: Application) -> Comparison:
        """Keep the descriptor, call for proposals, and keep the offers."""
        name, store = application.name, self._workshop.store
        self._check_files(application)
        if deployment := await live_deployment(self._workshop, name):
            raise refuse(
                "already-deployed",
                f"{name} is {deployment.status} as {deployment.id}: its descriptor cannot change under it",
                f"`agency destroy {name}` first, or submit under another name",
            )
        if await store.find(Application, name) != application:
            await self._check_no_agreement(name)
        await store.put(application, id=name, application=name)
        now = utc_now()
        call = CallForProposals(
            id=new_id("call"),
            application=name,
            purpose="deployment",
            issued=now,
            reply_by=now + self._call_time,
            requirements=application.requirements,
            resources=application.resources,
        )
        await store.put(call, id=call.id, application=name)
        await self._workshop.events.happened(name, "submitted", f"call for proposals {call.id} goes out")
        comparison = await ask(self, self.link.address(addresses.BROKER), call, Comparison)
        await keep_offers(self._workshop, comparison)
        return comparison

    def _check_files(self, application: Application) -> None:
        for component in application.components:
            for file in component.files:
                if file.digest is None or not self._workshop.blobs.has(file.digest):
                    raise refuse(
                        "file-missing",
                        f"component {component.name!r}: the content of {file.source!r} has not been uploaded",
                        "submit the descriptor with `agency submit`, which uploads its files first",
                    )

    async def see_to(self, request: Request) -> Document:
        """Do what was requested, or have it done by the agent whose work it is."""
        if request.action == "accept":
            return await self.accept(request.subject, request.delegation)
        if request.action in ("plan-relocation", "relocate", "cancel"):
            kind = RelocationPlan if request.action == "plan-relocation" else RelocationReceipt
            expected = kind if request.action != "cancel" else Deployment
            return await ask(self, self.link.address(addresses.RELOCATOR), request, expected)
        return await ask(self, self.link.address(addresses.PROVISIONER), request, Deployment)

    async def accept(self, offer_id: str, delegation: str | None) -> Agreement:
        """Accept an offer. Accepting it again gives the same agreement."""
        offer = await self._workshop.store.get(Offer, offer_id)
        async with self._workshop.lock(offer.application):
            for agreement in await self._workshop.store.all(Agreement, application=offer.application):
                if agreement.offer == offer.id:
                    return agreement
            await self._check_no_agreement(offer.application)
            await self._check_acceptable(offer)
            return await make_agreement(self, self._workshop, offer, delegation)

    async def _check_no_agreement(self, name: str) -> None:
        for agreement in await self._workshop.store.all(Agreement, application=name):
            if agreement.state == "observed":
                raise refuse(
                    "already-agreed",
                    f"{name} has an agreement with {agreement.provider} already ({agreement.id})",
                    f"`agency deploy {name}`, or `agency destroy {name}` to end it",
                )

    async def _check_acceptable(self, offer: Offer) -> None:
        """Refuse what the broker left out, and what was offered for another descriptor than the present one."""
        store = self._workshop.store
        comparison = await store.get(Comparison, offer.call)
        row = next((row for row in comparison.rows if row.offer and row.offer.id == offer.id), None)
        if row is None or row.excluded_because:
            why = row.excluded_because[0].message if row else "it came too late to be compared"
            raise refuse(
                "excluded",
                f"the offer of {offer.vendor} does not qualify: {why}",
                "accept another, or change the requirements and submit again",
            )
        call = await store.get(CallForProposals, offer.call)
        application = await store.get(Application, offer.application)
        asked = ("deployment", application.requirements, application.resources)
        if (call.purpose, call.requirements, call.resources) != asked:
            raise refuse(
                "outdated",
                f"the offer of {offer.vendor} was made for something else than {offer.application} as it is now",
                f"accept one of the latest: see `agency offers {offer.application}`",
            )


async def keep_offers(workshop: Workshop, comparison: Comparison) -> None:
    """Remember a comparison and its offers."""
    application = comparison.application
    await workshop.store.put(comparison, id=comparison.call, application=application)
    for row in comparison.rows:
        if row.offer:
            await workshop.store.put(row.offer, id=row.offer.id, application=application)
    made = sum(1 for row in comparison.rows if not row.excluded_because)
    text = f"{made} of {len(comparison.rows)} vendors qualify for {comparison.call}"
    await workshop.events.happened(application, "offers", text)


async def make_agreement(agent: RoleAgent, workshop: Workshop, offer: Offer, delegation: str | None) -> Agreement:
    """Have the broker accept the offer, as the deployer has delegated it, check that the agreement is about it, and
    keep it."""
    try:
        request = Request(action="accept", subject=offer.id, delegation=delegation)
        agreement = await ask(agent, agent.link.address(addresses.BROKER), request, Agreement)
        if agreement.offer != offer.id or agreement.provider != offer.vendor or agreement.price != offer.price:
            raise refuse(
                "agreement-differs", f"{offer.vendor} confirms something else than it offered", "take another offer"
            )
    except AgencyError as error:
        await _not_stood_by(workshop, offer, error)
        raise
    await workshop.store.put(agreement, id=agreement.id, application=offer.application)
    await records.agreed(workshop.store, offer.vendor)
    await workshop.events.happened(offer.application, "agreed", f"{agreement.id} with {offer.vendor}")
    return agreement


async def _not_stood_by(workshop: Workshop, offer: Offer, error: AgencyError) -> None:
    """Hold it against the vendor that it did not confirm its offer, which was accepted in time. Where there was no
    answer, nobody knows whose fault that is."""
    if offer.expires <= utc_now() or error.problem.retryable or error.problem.code == "no-answer":
        return
    message, application = error.problem.message, offer.application
    await records.broke(
        workshop.store, offer.vendor, about=offer.id, code="not-stood-by", application=application, message=message
    )
