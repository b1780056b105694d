"""Deploying and relocating on toy clouds without agents: agreements are made by hand, all else is the real thing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from agency.relocation.conduit import introspect
from agency.relocation.graph import deployment_tasks
from agency.relocation.planner import choose_components, make_plan, resources_of
from agency.relocation.result import Result
from agency.relocation.viaduct import begin, result_of
from agency.relocation.workshop import Order, Workshop
from descriptors.application import Application
from descriptors.base import new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.deployment import Deployment
from descriptors.documents import digest
from descriptors.relocation import RelocationPlan
from descriptors.sla import Agreement, Offer
from vendor_modules.proposals import propose


async def carry_out(order: Order) -> Result:
    """Begin the order and wait for its end."""
    await begin(order)
    return await result_of(order.id)


async def offered(
    workshop: Workshop, application: Application, vendor: str, components: Sequence[str] | None = None
) -> Offer:
    """The vendor's offer for everything, or for some components that would be relocated to it."""
    now = utc_now()
    call = CallForProposals(
        id=new_id("call"),
        application=application.name,
        purpose="deployment" if components is None else "relocation",
        issued=now,
        reply_by=now + timedelta(seconds=5),
        resources=application.resources if components is None else resources_of(application, components),
    )
    offer = propose(vendor, call, await workshop.modules[vendor].catalogue())
    assert isinstance(offer, Offer), offer
    return offer


async def agreed(workshop: Workshop, offer: Offer) -> Agreement:
    """The agreement on an offer, kept."""
    agreement = Agreement(
        id=f"agreement-{offer.id}",
        application=offer.application,
        offer=offer.id,
        offer_digest=digest(offer),
        provider=offer.vendor,
        consumer="deployer",
        state="observed",
        agreed=utc_now(),
        price=offer.price,
        resources=offer.resources,
        allocations=offer.allocations,
    )
    await workshop.store.put(agreement, id=agreement.id, application=offer.application)
    return agreement


async def deployed(workshop: Workshop, application: Application, vendor: str) -> Deployment:
    """The application, running at the vendor."""
    await workshop.store.put(application, id=application.name, application=application.name)
    agreement = await agreed(workshop, await offered(workshop, application, vendor))
    deployment = Deployment(
        id=new_id("deployment"),
        application=application.name,
        revision=1,
        changed=utc_now(),
        status="deploying",
        agreements=(agreement.id,),
        resources=(),
        endpoints=(),
    )
    await workshop.store.insert(deployment, id=deployment.id, application=application.name)
    tasks = deployment_tasks(application, {c.name: vendor for c in application.components})
    order = Order(
        kind="deploy",
        id=deployment.id,
        application=application,
        deployment=deployment,
        agreement=agreement,
        tasks=tasks,
    )
    result = await carry_out(order)
    assert result.outcome == "done", result.problem
    return await workshop.store.get(Deployment, deployment.id)


async def planned(
    workshop: Workshop, application: Application, deployment: Deployment, target: str, component: str | None = None
) -> RelocationPlan:
    """The plan to move the application, or a component, to the vendor."""
    components = choose_components(application, deployment, component)
    offer = await offered(workshop, application, target, components)
    agreements = [await workshop.store.get(Agreement, agreement) for agreement in deployment.agreements]
    topology = await introspect(workshop.modules, deployment)
    await workshop.store.put(offer, id=offer.id, application=application.name)
    return make_plan(workshop, application, deployment, topology, agreements, offer, components, utc_now())


async def order_for(
    workshop: Workshop, application: Application, deployment: Deployment, plan: RelocationPlan
) -> Order:
    """The order to carry out that plan, its offer accepted."""
    agreement = await agreed(workshop, await workshop.store.get(Offer, plan.offer))
    return Order(
        kind="relocate",
        id=plan.id,
        application=application,
        deployment=deployment,
        agreement=agreement,
        plan=plan,
        tasks=plan.tasks,
    )
