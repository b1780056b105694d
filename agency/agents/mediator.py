"""The Mediator: the one agent a deployer talks to. Takes applications, has offers made, accepts, and passes work on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from agency import agreements, records
from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.links import Link
from agency.messaging.request import Responder, ask, own_site
from agency.problems import AgencyError, refuse
from agency.relocation.outcome import terminate
from agency.relocation.workshop import Workshop
from broker.placement import flows_of, part_calls, parts_of
from descriptors.application import Application
from descriptors.base import Document, new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison, Composition
from descriptors.deployment import Deployment
from descriptors.messages import Request
from descriptors.negotiation import Mandate
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

    def __init__(
        self, jid: str, link: Link, workshop: Workshop, call_seconds: float, deployers: Collection[str] = ()
    ) -> None:
        """``call_seconds``: how long vendors have to answer a call; ``deployers``: who else than the site's own agents
        may ask, by their JIDs."""
        super().__init__(jid, link)
        self._workshop = workshop
        self._deployers = frozenset(deployers)
        self._call_time = timedelta(seconds=call_seconds)

    async def setup(self) -> None:
        """Answer requests."""
        own = own_site(self)
        Responder.install(
            self,
            {Application: self.take, Mandate: self.negotiate, Request: self.see_to},
            lambda sender, content: own(sender, content) or sender.bare in self._deployers,
        )

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
        before = await store.find(Application, name)
        if before != application:
            await self._check_no_agreement(name)
        await store.put(application, id=name, application=name)
        call = await self._call(application, self._call_time, composed=True)
        for each in part_calls(call):  # what is offered for a part answers the call for it
            await store.put(each, id=each.id, application=name)
        await self._workshop.events.happened(name, "submitted", f"call for proposals {call.id} goes out")
        try:
            comparison = await ask(self, self.link.address(addresses.BROKER), call, Comparison)
        except AgencyError as error:
            if error.problem.code == "cancelled" and await store.find(Application, name) == application:
                await self._put_back(name, before)
            raise
        await keep_offers(self._workshop, comparison)
        return comparison

    async def _put_back(self, name: str, before: Application | None) -> None:
        """Let an application be what it was before it was submitted."""
        if before is None:
            await self._workshop.store.delete(Application, name)
        else:
            await self._workshop.store.put(before, id=name, application=name)

    async def negotiate(self, mandate: Mandate) -> Document:
        """Have the broker negotiate about an application that was submitted, about moving one that runs, or about the
        agreement under which one runs; answers with a comparison of the last offers, or with a plan."""
        if mandate.purpose == "relocation":
            return await ask(self, self.link.address(addresses.RELOCATOR), mandate, RelocationPlan)
        name, purpose = mandate.application, mandate.purpose
        application = await self._workshop.store.get(Application, name)
        time = self._call_time if mandate.seconds is None else timedelta(seconds=mandate.seconds)
        call = await (self._anew if purpose == "renegotiation" else self._first)(application, mandate.vendor, time)
        await self._workshop.events.happened(name, "negotiating", f"about {call.id}, {mandate.strategy}")
        asked = mandate.model_copy(update={"call": call.id})
        comparison = await ask(self, self.link.address(addresses.BROKER), asked, Comparison)
        await keep_offers(self._workshop, comparison)
        return comparison

    async def _first(self, application: Application, vendor: str | None, time: timedelta) -> CallForProposals:
        """The call to negotiate about an application that has no agreement yet."""
        name = application.name
        if deployment := await live_deployment(self._workshop, name):
            raise refuse(
                "already-deployed",
                f"{name} is {deployment.status} as {deployment.id}, under an agreement",
                f"`agency renegotiate {name}`, or `agency relocate {name} --plan --strategy boulware` with others",
            )
        await self._check_no_agreement(name)
        return await self._call(application, time, vendors=(vendor,) if vendor else ())

    async def _anew(self, application: Application, vendor: str | None, time: timedelta) -> CallForProposals:
        """The call to negotiate with the vendor of a running agreement about another one in its place."""
        name, store = application.name, self._workshop.store
        deployment = await live_deployment(self._workshop, name)
        if deployment is None:
            raise refuse(
                "not-deployed", f"{name} runs nowhere", f"`agency negotiate {name}` negotiates about the first"
            )
        old = await agreements.renegotiable(self._workshop, deployment, vendor)
        now = utc_now()
        call = CallForProposals(
            id=new_id("call"),
            application=name,
            purpose="renegotiation",
            issued=now,
            reply_by=now + time,
            vendors=(old.provider,),
            requirements=application.requirements,
            resources=agreements.untied(old),
            components=old.components,
            supersedes=agreements.reference(old),
        )
        await store.put(call, id=call.id, application=name)
        return call

    async def _call(
        self, application: Application, time: timedelta, *, vendors: tuple[str, ...] = (), composed: bool = False
    ) -> CallForProposals:
        """A call for what the application needs, kept; ``composed``: also for its parts, from different vendors."""
        now = utc_now()
        call = CallForProposals(
            id=new_id("call"),
            application=application.name,
            purpose="deployment",
            issued=now,
            reply_by=now + time,
            vendors=vendors,
            requirements=application.requirements,
            resources=application.needed(),
            parts=parts_of(application) if composed else (),
            flows=flows_of(application) if composed else (),
        )
        await self._workshop.store.put(call, id=call.id, application=application.name)
        return call

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
            return await self.accept(request.subject, request.delegations)
        if request.action == "cancel":
            whose = addresses.RELOCATOR if self._workshop.busy.get(request.subject) else addresses.BROKER
            return await ask(self, self.link.address(whose), request, Request)
        if request.action in ("plan-relocation", "relocate"):
            expected = RelocationPlan if request.action == "plan-relocation" else RelocationReceipt
            return await ask(self, self.link.address(addresses.RELOCATOR), request, expected)
        return await ask(self, self.link.address(addresses.PROVISIONER), request, Deployment)

    async def accept(self, subject: str, delegations: Sequence[str]) -> Agreement | Composition:
        """Accept an offer, or all offers of a composition, of which each has its delegation. Accepting it again gives
        the same agreement. One that supersedes another takes its place."""
        store = self._workshop.store
        if composition := await store.find(Composition, subject):
            return await self._accept_all(composition, delegations)
        offer = await store.get(Offer, subject)
        async with self._workshop.lock(offer.application):
            known = await store.all(Agreement, application=offer.application)
            agreement = next((each for each in known if each.offer == offer.id), None)
            agreement = agreement or await self._agree(offer, delegations)
            if agreement.state == "observed" and not self._workshop.busy.get(offer.application):
                await agreements.put_in_place(self._workshop, agreement)
            return agreement

    async def _agree(self, offer: Offer, delegations: Sequence[str]) -> Agreement:
        if offer.supersedes is None:
            await self._check_no_agreement(offer.application)
            await self._check_whole(offer)
            await self._check_acceptable(offer)
        else:
            self._workshop.refuse_if_busy(offer.application)
            await self._check_qualifies(offer)
            await agreements.check_superseding(self._workshop, offer, offer.supersedes)
        return await make_agreement(self, self._workshop, offer, delegations)

    async def _accept_all(self, composition: Composition, delegations: Sequence[str]) -> Composition:
        """Accept every offer, or none: when one vendor backs out, what was agreed with the others ends."""
        name, workshop = composition.application, self._workshop
        async with workshop.lock(name):
            known = await workshop.store.all(Agreement, application=name)
            made = [a for a in known if a.offer in {offer.id for offer in composition.offers} and a.state == "observed"]
            if len(made) == len(composition.offers):
                return composition
            await self._check_no_agreement(name, but=made)
            await self._check_acceptable(composition)
            try:
                for number, offer in enumerate(composition.offers):
                    if offer.id not in {agreement.offer for agreement in made}:
                        its = delegations[number : number + 1]
                        made.append(await make_agreement(self, workshop, offer, its))
            except Exception:
                for agreement in made:
                    await terminate(workshop, agreement)
                raise
        return composition

    async def _check_no_agreement(self, name: str, but: Sequence[Agreement] = ()) -> None:
        for agreement in await self._workshop.store.all(Agreement, application=name):
            if agreement.state == "observed" and agreement not in but:
                raise refuse(
                    "already-agreed",
                    f"{name} has an agreement with {agreement.provider} already ({agreement.id})",
                    f"`agency deploy {name}`, or `agency destroy {name}` to end it",
                )

    async def _check_whole(self, offer: Offer) -> None:
        """Refuse what is offered for a part only."""
        if offer.components:
            raise refuse(
                "part-only",
                f"the offer of {offer.vendor} is for {', '.join(offer.components)} only",
                f"accept the composition that it is in: see `agency offers {offer.application}`",
            )

    async def _check_qualifies(self, chosen: Offer | Composition) -> None:
        """Refuse what the broker left out."""
        whose = chosen.vendor if isinstance(chosen, Offer) else chosen.name
        comparison = await self._workshop.store.get(Comparison, chosen.call)
        row = next((row for row in comparison.rows if row.proposal and row.proposal.id == chosen.id), None)
        if row is None or row.excluded_because:
            why = row.excluded_because[0].message if row else "it came too late to be compared"
            raise refuse(
                "excluded",
                f"the offer of {whose} does not qualify: {why}",
                "accept another, or change the requirements and submit again",
            )

    async def _check_acceptable(self, chosen: Offer | Composition) -> None:
        """Refuse what the broker left out, and what was offered for another descriptor than the present one."""
        await self._check_qualifies(chosen)
        store, whose = self._workshop.store, chosen.vendor if isinstance(chosen, Offer) else chosen.name
        call = await store.get(CallForProposals, chosen.call)
        application = await store.get(Application, chosen.application)
        asked = ("deployment", application.requirements, application.needed())
        if (call.purpose, call.requirements, call.resources) != asked:
            raise refuse(
                "outdated",
                f"the offer of {whose} was made for something else than {chosen.application} as it is now",
                f"accept one of the latest: see `agency offers {chosen.application}`",
            )


async def keep_offers(workshop: Workshop, comparison: Comparison) -> None:
    """Remember a comparison and its offers."""
    application = comparison.application
    await workshop.store.put(comparison, id=comparison.call, application=application)
    for row in comparison.rows:
        if row.composition:
            await workshop.store.put(row.composition, id=row.composition.id, application=application)
        for offer in row.composition.offers if row.composition else [row.offer] if row.offer else []:
            await workshop.store.put(offer, id=offer.id, application=application)
    vendors = [row for row in comparison.rows if row.vendor]
    made = sum(1 for row in vendors if not row.excluded_because)
    text = f"{made} of {len(vendors)} vendors qualify for {comparison.call}"
    await workshop.events.happened(application, "offers", text)


async def make_agreement(agent: RoleAgent, workshop: Workshop, offer: Offer, delegations: Sequence[str]) -> Agreement:
    """Have the broker accept the offer, as the deployer has delegated it, check that the agreement is about it, and
    keep it."""
    try:
        request = Request(action="accept", subject=offer.id, delegations=tuple(delegations))
        agreement = await ask(agent, agent.link.address(addresses.BROKER), request, Agreement)
        agreed = (agreement.offer, agreement.provider, agreement.price, agreement.components)
        if agreed != (offer.id, offer.vendor, offer.price, offer.components):
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
    """Hold it against the vendor that it did not confirm its offer, which was accepted in time. Other errors may be
    anybody's: where there was no answer, nobody knows whose fault that is."""
    its_own = error.problem.code in ("not-offered", "agreement-differs") or records.at_fault(error.problem)
    if offer.expires <= utc_now() or not its_own:
        return
    message, application = error.problem.message, offer.application
    await records.broke(
        workshop.store, offer.vendor, about=offer.id, code="not-stood-by", application=application, message=message
    )
