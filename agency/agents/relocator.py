"""The Relocator: plans a relocation, and executes the plan that the deployer has approved."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from datetime import timedelta

from agency.agents import addresses
from agency.agents.mediator import keep_offers, live_deployment, make_agreement
from agency.messaging.agent import RoleAgent
from agency.messaging.links import Link
from agency.messaging.request import Responder, ask
from agency.problems import AgencyError, refuse
from agency.relocation.conduit import introspect
from agency.relocation.outcome import SOURCE_NOT_RESTORED, receipt_id
from agency.relocation.planner import choose_components, make_plan, resources_of
from agency.relocation.viaduct import begin, result_of, was_begun
from agency.relocation.workshop import Order, Workshop, mark_cancelled
from descriptors.application import Application
from descriptors.base import MIB, Document, new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison
from descriptors.deployment import Deployment
from descriptors.messages import Problem, Request
from descriptors.negotiation import Mandate
from descriptors.relocation import RelocationPlan, RelocationReceipt
from descriptors.sla import Agreement, Offer

SPARE_BYTES = 64 * MIB
"""Room on the disk that a relocation leaves for everything else."""


class RelocatorAgent(RoleAgent):
    """Answers requests to plan a relocation (with a plan), to apply one (with a receipt) and to cancel one."""

    def __init__(self, jid: str, link: Link, workshop: Workshop, call_seconds: float) -> None:
        """``call_seconds``: how long vendors have to answer a call."""
        super().__init__(jid, link)
        self._workshop = workshop
        self._call_time = timedelta(seconds=call_seconds)

    async def setup(self) -> None:
        """Answer requests."""
        Responder.install(self, {Request: self.see_to, Mandate: self.negotiate})

    async def see_to(self, request: Request) -> Document:
        """Do what was requested."""
        if request.action == "plan-relocation":
            return await self.plan(request.subject, request.vendor, request.component)
        if request.action == "cancel":
            return await self.cancel(request)
        return await self.apply(request.subject, request.delegations)

    async def negotiate(self, mandate: Mandate) -> RelocationPlan:
        """Plan to move it to the vendor with whom the best terms were negotiated."""
        return await self.plan(mandate.application, mandate.vendor, mandate.component, mandate)

    async def plan(
        self, name: str, vendor: str | None, component: str | None, mandate: Mandate | None = None
    ) -> RelocationPlan:
        """Plan to move the application, or one component: to that vendor, or to the best other one. With a mandate,
        what it costs is negotiated before."""
        store = self._workshop.store
        application, deployment = await self._running(name)
        components = choose_components(application, deployment, component, vendor)
        here = deployment.vendor_of(components[0])
        if vendor == here:
            raise refuse("already-there", f"{name} is at {vendor} already", "name another vendor")
        time = timedelta(seconds=mandate.seconds) if mandate and mandate.seconds else self._call_time
        call = self._call(application, components, vendor, here, time)
        await store.put(call, id=call.id, application=name)
        asked = call if mandate is None else mandate.model_copy(update={"call": call.id})
        comparison = await ask(self, self.link.address(addresses.BROKER), asked, Comparison)
        await keep_offers(self._workshop, comparison)
        if comparison.chosen is None:
            reasons = "; ".join(f"{row.vendor}: {row.excluded_because[0].message}" for row in comparison.rows)
            raise refuse(
                "no-offer", f"no vendor takes {name}: {reasons}", "change the requirements, or name another vendor"
            )
        self._workshop.check_account(comparison.chosen.vendor, name)
        agreements = [await store.get(Agreement, agreement) for agreement in deployment.agreements]
        for resource in deployment.resources:
            self._workshop.module(resource.vendor)
        topology = await introspect(self._workshop.modules, deployment)
        plan = make_plan(
            self._workshop, application, deployment, topology, agreements, comparison.chosen, components, utc_now()
        )
        await store.put(plan, id=plan.id, application=name)
        await self._workshop.events.happened(name, "planned", f"{plan.id}: {plan.source} to {plan.target}")
        return plan

    def _call(
        self, application: Application, components: tuple[str, ...], vendor: str | None, here: str, time: timedelta
    ) -> CallForProposals:
        others = tuple(name for name in self._workshop.modules if name != here)
        if not others and vendor is None:
            raise refuse("no-other-vendor", f"there is no vendor but {here}", "add one with `agency vendor add`")
        now = utc_now()
        return CallForProposals(
            id=new_id("call"),
            application=application.name,
            purpose="relocation",
            issued=now,
            reply_by=now + time,
            vendors=(vendor,) if vendor else others,
            requirements=application.requirements,
            resources=resources_of(application, components),
            components=components,
        )

    async def apply(self, plan_id: str, delegations: Sequence[str]) -> RelocationReceipt:
        """Execute an approved plan. Joins it when it is under way; gives its receipt when it is done."""
        store = self._workshop.store
        plan = await store.get(RelocationPlan, plan_id)
        async with self._workshop.lock(plan.application):
            if not await was_begun(plan_id):
                await begin(await self._order(plan, delegations))
        await result_of(plan_id)
        receipt = await store.get(RelocationReceipt, receipt_id(plan_id))
        if receipt.outcome != "relocated":
            raise AgencyError(_what_happened(receipt))
        return receipt

    async def _order(self, plan: RelocationPlan, delegations: Sequence[str]) -> Order:
        store = self._workshop.store
        self._workshop.refuse_if_busy(plan.application)
        application, deployment = await self._running(plan.application)
        if deployment.id != plan.deployment or deployment.revision != plan.revision:
            raise refuse("plan-outdated", f"{plan.application} has changed since {plan.id} was made", "plan again")
        if plan.expires <= utc_now():
            raise refuse("expired", f"the offer under {plan.id} expired at {plan.expires:%H:%M:%S %Z}", "plan again")
        await asyncio.to_thread(self._check_room, plan)
        agreement = await make_agreement(self, self._workshop, await store.get(Offer, plan.offer), delegations)
        return Order(
            kind="relocate",
            id=plan.id,
            application=application,
            deployment=deployment,
            agreement=agreement,
            plan=plan,
            tasks=plan.tasks,
        )

    def _check_room(self, plan: RelocationPlan) -> None:
        """Refuse before anything is stopped what could not be brought across: content is here twice, as it came and as
        it goes."""
        self._workshop.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(self._workshop.spool).free, 2 * plan.bytes + SPARE_BYTES
        if free < needed:
            raise refuse(
                "disk-full",
                f"{plan.id} needs {needed // MIB} MiB in {self._workshop.spool}, and {free // MIB} MiB are free",
                "free some, or put the agency's state directory on a larger disk",
            )

    async def cancel(self, request: Request) -> Request:
        """Have the operation that is under way undone; it stops at its next chunk or task. Answers with its id."""
        name = request.subject
        operation = self._workshop.busy.get(name)
        deployment = await live_deployment(self._workshop, name)
        if operation is None or deployment is None:
            raise refuse("not-busy", f"nothing is under way for {name}", "nothing is left to cancel")
        plan = await self._workshop.store.find(RelocationPlan, operation)
        if plan and deployment.revision > plan.revision:
            raise refuse(
                "too-late", f"{name} has been switched to {plan.target} already", "relocate it back, if need be"
            )
        mark_cancelled(self._workshop, operation)
        return request.model_copy(update={"subject": operation})

    async def _running(self, name: str) -> tuple[Application, Deployment]:
        application = await self._workshop.store.get(Application, name)
        deployment = await live_deployment(self._workshop, name)
        if deployment is None or deployment.status != "running":
            state = deployment.status if deployment else "not deployed"
            raise refuse("not-running", f"{name} is {state}: only what runs can be relocated", f"`agency start {name}`")
        return application, deployment


def _what_happened(receipt: RelocationReceipt) -> Problem:
    """The problem to show for a relocation that was undone: what went wrong, where things stand, what to do."""
    cause = receipt.problems[0].message if receipt.problems else "it was cancelled"
    pending = len(receipt.problems) - 1
    message = f"the relocation from {receipt.source} to {receipt.target} was {receipt.outcome}: {cause}. "
    if any(problem.code == SOURCE_NOT_RESTORED for problem in receipt.problems):
        message += f"{receipt.application} could not be started again at {receipt.source}: its data is there, unharmed."
        remedy = f"see that {receipt.source} is in order, then `agency start {receipt.application}`"
    else:
        message += f"{receipt.application} goes on at {receipt.source} with its data."
        remedy = "plan and apply again"
        if receipt.outcome == "rolled-back":
            remedy = f"see that {receipt.target} is in order, then {remedy}"
    if pending > 0:
        message += f" {pending} clean-ups at {receipt.target} are pending and will be tried until they succeed."
    return Problem(
        code=receipt.outcome,
        message=message[:4096],
        remedy=remedy,
        receipt=receipt.id,
    )
