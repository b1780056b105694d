"""The Provisioner: creates, starts, stops and destroys what an agreement is about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from agency.agents.mediator import LIVE, live_deployment
from agency.messaging.agent import RoleAgent
from agency.messaging.links import Link
from agency.messaging.request import Responder
from agency.problems import AgencyError, refuse
from agency.relocation.graph import deployment_tasks
from agency.relocation.outcome import terminate
from agency.relocation.probing import await_health
from agency.relocation.release import let_go
from agency.relocation.viaduct import begin, result_of, was_begun
from agency.relocation.workshop import Order, Workshop, covers
from descriptors.application import Application
from descriptors.base import new_id, utc_now
from descriptors.deployment import DeployedResource, Deployment
from descriptors.documents import digest
from descriptors.messages import Request
from descriptors.sla import Agreement
from vendor_modules.capabilities import Addresses, Power
from vendor_modules.errors import Unsupported


class ProvisionerAgent(RoleAgent):
    """Answers requests to deploy, start, stop and destroy an application with its deployment."""

    def __init__(self, jid: str, link: Link, workshop: Workshop) -> None:
        super().__init__(jid, link)
        self._workshop = workshop

    async def setup(self) -> None:
        """Answer requests."""
        Responder.install(self, {Request: self.see_to})

    async def see_to(self, request: Request) -> Deployment:
        """Do what was requested, unless something else is being done to the application."""
        actions: dict[str, Callable[[str], Awaitable[Deployment]]] = {
            "start": self.start_application,
            "stop": self.stop_application,
            "destroy": self.destroy,
        }
        if request.action == "deploy":
            return await self.deploy(request.subject)
        if request.action not in actions:
            raise refuse("unknown-action", f"nobody does {request.action!r}", f"one of: deploy, {', '.join(actions)}")
        async with self._workshop.lock(request.subject):
            self._workshop.refuse_if_busy(request.subject)
            return await actions[request.action](request.subject)

    async def deploy(self, name: str) -> Deployment:
        """Create everything under the accepted agreement, or nothing. Joins a deployment that is under way."""
        store = self._workshop.store
        application = await store.get(Application, name)
        async with self._workshop.lock(name):  # requests that come at once find the same deployment
            deployment = await live_deployment(self._workshop, name)
            if deployment is None:
                for agreement in await self._agreements(name):
                    await self._check_account(agreement)
                deployment = await self._begin(name)
            if deployment.status != "deploying":
                return deployment
            if not await was_begun(deployment.id):
                await begin(await self._order(application, deployment))
        result = await result_of(deployment.id)
        if result.problem:
            message = f"{name} was not deployed; {result.failed_task} failed: {result.problem.message}"
            raise AgencyError(result.problem.model_copy(update={"message": message[:4096]}))
        return await store.get(Deployment, deployment.id)

    async def _order(self, application: Application, deployment: Deployment) -> Order:
        agreements = [await self._workshop.store.get(Agreement, each) for each in deployment.agreements]
        for agreement in agreements:
            if agreement.state != "observed":
                name, remedy = deployment.application, "then submit it again"
                raise refuse("no-agreement", f"{agreement.id} has ended", f"`agency destroy {name}`, {remedy}")
        return Order(
            kind="deploy",
            id=deployment.id,
            application=application,
            deployment=deployment,
            agreement=agreements[0],
            further=tuple(agreements[1:]),
            tasks=deployment_tasks(application, _places(application, agreements)),
        )

    async def _check_account(self, agreement: Agreement) -> None:
        """Refuse before anything is begun what cannot be operated from here, or was agreed with another agent than the
        one that speaks for our account."""
        workshop, vendor = self._workshop, agreement.provider
        workshop.check_account(vendor, agreement.application)
        signers = await workshop.site.signed_by(digest(agreement))
        if workshop.speaker(vendor) not in signers:
            raise refuse(
                "other-agent",
                f"{agreement.id} was agreed with {', '.join(sorted(signers)) or 'nobody'}, and for the account with "
                f"{vendor} here {workshop.speaker(vendor)} speaks",
                f"`agency destroy {agreement.application}` ends the agreement; then submit it again",
            )

    async def _begin(self, name: str) -> Deployment:
        agreements = await self._agreements(name)
        deployment = Deployment(
            id=new_id("deployment"),
            application=name,
            revision=1,
            changed=utc_now(),
            status="deploying",
            agreements=tuple(agreement.id for agreement in agreements),
            resources=(),
            endpoints=(),
        )
        await self._workshop.store.insert(deployment, id=deployment.id, application=name)
        return deployment

    async def _agreements(self, name: str) -> list[Agreement]:
        agreements = await self._workshop.store.all(Agreement, application=name)
        observed = [agreement for agreement in agreements if agreement.state == "observed"]
        if not observed:
            raise refuse("no-agreement", f"no offer for {name} has been accepted", "`agency accept OFFER` first")
        return observed

    async def start_application(self, name: str) -> Deployment:
        """Start every machine, what others depend on first; done when each says that it works."""
        application, deployment = await self._deployed(name)
        for component in application.start_order():
            machine = deployment.the("machine", component=component.name)
            started = await self._power(machine).start_machine(machine.id)
            for address in deployment.all("address", component=component.name):
                module = self._workshop.module(address.vendor)
                if isinstance(module, Addresses):
                    await module.associate_address(address.id, machine.id)
            if component.health:
                url = f"http://{started.host}:{started.port}{component.health.path}"
                describe = partial(self._power(machine).describe_machine, machine.id)
                await await_health(url, f"{component.name} at {machine.vendor}", describe)
        return await self._record(deployment, "running")

    async def stop_application(self, name: str) -> Deployment:
        """Stop every machine, what others depend on last."""
        application, deployment = await self._deployed(name)
        for component in reversed(application.start_order()):
            machine = deployment.the("machine", component=component.name)
            await self._power(machine).stop_machine(machine.id)
        return await self._record(deployment, "stopped")

    def _power(self, machine: DeployedResource) -> Power:
        module = self._workshop.module(machine.vendor)
        if not isinstance(module, Power):
            raise Unsupported("has no power", vendor=machine.vendor, operation="start or stop a machine")
        return module

    async def destroy(self, name: str) -> Deployment:
        """Remove everything and end the agreements. What cannot be removed now is left to the janitor."""
        deployment = await live_deployment(self._workshop, name) or await self._never_deployed(name)
        if deployment is None:
            raise refuse("not-deployed", f"{name} is not deployed", "nothing is left to destroy; see `agency status`")
        await let_go(self._workshop, deployment.resources, f"destroy of {name}")
        await self._end_agreements(name)
        return await self._record(deployment.model_copy(update={"resources": (), "endpoints": ()}), "destroyed")

    async def _never_deployed(self, name: str) -> Deployment | None:
        """A deployment of nothing, for an application that was agreed upon and no more: what ends is the agreement."""
        agreements = await self._workshop.store.all(Agreement, application=name)
        if all(agreement.state != "observed" for agreement in agreements):
            return None
        return await self._begin(name)

    async def _end_agreements(self, name: str) -> None:
        for agreement in await self._workshop.store.all(Agreement, application=name):
            if agreement.state == "observed":
                await terminate(self._workshop, agreement)

    async def _deployed(self, name: str) -> tuple[Application, Deployment]:
        deployment = await live_deployment(self._workshop, name)
        if deployment is None or deployment.status not in LIVE - {"deploying"}:
            raise refuse("not-deployed", f"{name} is not deployed", f"`agency deploy {name}` first")
        return await self._workshop.store.get(Application, name), deployment

    async def _record(self, deployment: Deployment, status: str) -> Deployment:
        after = deployment.model_copy(
            update={"status": status, "revision": deployment.revision + 1, "changed": utc_now()}
        )
        await self._workshop.store.replace(after, id=after.id, expected_revision=deployment.revision)
        await self._workshop.events.happened(deployment.application, status, f"{deployment.application} is {status}")
        return after


def _places(application: Application, agreements: Sequence[Agreement]) -> dict[str, str]:
    """The vendor of each component; refused while some component has none."""
    places = {
        component.name: agreement.provider
        for component in application.components
        for agreement in agreements
        if covers(agreement, [component.name])
    }
    if missing := [component.name for component in application.components if component.name not in places]:
        raise refuse(
            "agreement-missing",
            f"there is no agreement for {', '.join(missing)} of {application.name}",
            f"accept the composition again, or `agency destroy {application.name}` and submit it again",
        )
    return places
