"""Plans to approve: what moves, what stays, what is adapted, what it costs, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agency.problems import AgencyError
from agency.relocation.planner import MACHINE_DISK_BYTES, choose_components, resources_of
from agency.relocation.workshop import Workshop
from descriptors.base import MIB
from descriptors.deployment import Deployment
from descriptors.relocation import RelocationPlan
from tests.agency.relocation.helpers import carry_out, deployed, order_for, planned
from tests.agency.relocation.test_graph import as_deployed
from tests.agency.toys import CONFIG, Cloud, CloudModule, notebook
from tests.vendor_modules.toy import ToyModule
from vendor_modules.capabilities import KeyPairs, MachineBundle, Power
from vendor_modules.module import VendorModule

pytestmark = pytest.mark.usefixtures("dbos")

Clouds = dict[str, Cloud]


def refusal(code: str) -> Any:
    """Expects an :class:`AgencyError` with that code."""
    return pytest.raises(AgencyError, check=lambda error: error.problem.code == code)


def items(plan: RelocationPlan) -> dict[tuple[str, str], tuple[str, int]]:
    """Action and bytes, by kind and name."""
    return {(item.kind, item.name): (item.action, item.bytes) for item in plan.items}


async def moved(workshop: Workshop, deployment: Deployment, target: str) -> Deployment:
    """The application after its relocation to the target."""
    application = notebook()
    plan = await planned(workshop, application, deployment, target)
    result = await carry_out(await order_for(workshop, application, deployment, plan))
    assert result.outcome == "done", result.problem
    return await workshop.store.get(Deployment, deployment.id)


async def test_to_a_vendor_with_block_storage(workshop: Workshop) -> None:
    """Machine and volume move, the bucket stays, the configuration is adapted; the bytes are their sum."""
    application = notebook()
    plan = await planned(workshop, application, await deployed(workshop, application, "alpha"), "beta")
    assert items(plan) == {
        ("machine", "web"): ("move", MACHINE_DISK_BYTES + len(CONFIG)),
        ("volume", "data"): ("move", MIB),
        ("bucket", "pictures"): ("stay", 0),
        ("configuration", "web"): ("adapt", 0),
    }
    assert plan.bytes == MACHINE_DISK_BYTES + len(CONFIG) + MIB
    assert (plan.source, plan.target, plan.components) == ("alpha", "beta", ("web",))


async def test_to_a_vendor_without_block_storage(workshop: Workshop) -> None:
    """The volume is adapted: the plan says that it goes into the machine's disk, where, and why."""
    application = notebook()
    plan = await planned(workshop, application, await deployed(workshop, application, "alpha"), "cirrus")
    assert items(plan)["volume", "data"] == ("adapt", MIB)
    (words,) = [item.what for item in plan.items if item.kind == "volume"]
    assert "volumes/data.raw" in words
    assert "cirrus has no block storage" in words


async def test_out_of_a_machine_s_disk_again(workshop: Workshop) -> None:
    """The other way the volume is adapted too: out of the disk, whose bytes count once, to a volume at the target."""
    application = notebook()
    deployment = await moved(workshop, await deployed(workshop, application, "alpha"), "cirrus")
    plan = await planned(workshop, application, deployment, "beta")
    assert items(plan)["volume", "data"] == ("adapt", 0)
    assert plan.bytes == MACHINE_DISK_BYTES + len(CONFIG) + MIB
    (words,) = [item.what for item in plan.items if item.kind == "volume"]
    assert words == "out of the machine's disk, to a volume at beta"


async def test_from_disk_to_disk(workshop: Workshop, clouds: Clouds) -> None:
    """Between two vendors without block storage the volume moves with the machine: nothing is adapted."""
    application = notebook()
    deployment = await moved(workshop, await deployed(workshop, application, "alpha"), "cirrus")
    clouds["beta"].block = False
    plan = await planned(workshop, application, deployment, "beta")
    assert items(plan)["volume", "data"] == ("move", 0)


async def test_prices_before_and_after(workshop: Workshop) -> None:
    """The whole application's price: what moves at the new vendor's price, what stays at the old one's."""
    application = notebook()
    plan = await planned(workshop, application, await deployed(workshop, application, "alpha"), "beta")
    volume = (Decimal("0.1") / 1024 / 730).quantize(Decimal("0.000001"))
    assert plan.price_before.per_hour == Decimal("0.01") + volume
    assert plan.price_after.per_hour == Decimal("0.02") + volume
    assert plan.price_after.per_month == plan.price_after.per_hour * 730


async def test_the_price_of_what_stays_counts_after_every_move(workshop: Workshop, clouds: Clouds) -> None:
    """What was left at the first vendor is still paid for when the rest moves a second time."""
    application = notebook()
    agreed_at_first = await deployed(workshop, application, "alpha")
    deployment = await moved(workshop, agreed_at_first, "cirrus")
    assert len(deployment.agreements) == 2
    plan = await planned(workshop, application, deployment, "beta")
    assert plan.price_before.per_hour == Decimal("0.015")
    volume = (Decimal("0.1") / 1024 / 730).quantize(Decimal("0.000001"))
    assert plan.price_after.per_hour == Decimal("0.02") + volume


async def test_a_plan_is_for_one_revision(workshop: Workshop) -> None:
    """A plan names the deployment and the revision that it was made for, and ends with its offer."""
    application = notebook()
    deployment = await deployed(workshop, application, "alpha")
    plan = await planned(workshop, application, deployment, "beta")
    assert (plan.deployment, plan.revision) == (deployment.id, deployment.revision)
    assert plan.expires > plan.created
    assert 0 < plan.downtime_seconds < plan.seconds


async def test_one_component_of_two(workshop: Workshop) -> None:
    """Of two components one may move alone, if the other is not told where it is; only what it uses goes with it."""
    application = notebook(front=True)
    deployment = await deployed(workshop, application, "alpha")
    plan = await planned(workshop, application, deployment, "beta", "door")
    assert plan.components == ("door",)
    assert {kind for kind, _ in items(plan)} == {"machine", "configuration"}
    assert {task.subject for task in plan.tasks} == {"door", None}


def test_a_component_that_another_is_told_of_stays() -> None:
    """A component that another's configuration names cannot move alone: the other would look for it in vain."""
    application = notebook(front=True)
    deployment = as_deployed(application, "alpha")
    with refusal("component-in-use") as error:
        choose_components(application, deployment, "web")
    assert "'door'" in error.value.problem.message


def test_an_unknown_component() -> None:
    """A component that there is not is refused with those that there are."""
    application = notebook(front=True)
    deployment = as_deployed(application, "alpha")
    with refusal("no-such-component") as error:
        choose_components(application, deployment, "attic")
    assert "web, door" in error.value.problem.message


def test_machines_and_volumes_move_and_buckets_stay() -> None:
    """The resource classes of a move are those of machines and volumes, each once."""
    application = notebook(front=True)
    assert [resource.name for resource in resources_of(application, ["web", "door"])] == ["machine", "machine", "data"]


async def test_something_is_missing_at_the_source(workshop: Workshop, clouds: Clouds) -> None:
    """An application of which somebody removed a part is not moved; the part is named."""
    application = notebook()
    deployment = await deployed(workshop, application, "alpha")
    group = deployment.the("security-group").id
    del clouds["alpha"].held[group]
    with refusal("resources-missing") as error:
        await planned(workshop, application, deployment, "beta")
    assert "security-group security-group-web at alpha" in error.value.problem.message


async def test_another_currency(workshop: Workshop, clouds: Clouds) -> None:
    """A vendor priced in another currency is refused: the plan could not say what changes."""
    application = notebook()
    deployment = await deployed(workshop, application, "alpha")
    clouds["beta"].currency = "USD"
    with refusal("other-currency") as error:
        await planned(workshop, application, deployment, "beta")
    assert "USD" in error.value.problem.message


def without(capability: type[VendorModule], module: CloudModule) -> VendorModule:
    """The same module with one ability less: what a module can do is what it inherits."""
    bases = tuple(base for base in ToyModule.__bases__ if not issubclass(base, capability))
    body = {name: value for name, value in vars(ToyModule).items() if name not in ("__dict__", "__weakref__")}
    body |= {name: vars(CloudModule)[name] for name in ("_cloud", "_catalogue")}
    lesser = type("Lesser", bases, body)(module.vendor, module.settings, module.services)
    lesser.cloud = module.cloud
    return lesser


async def test_a_vendor_that_cannot_do_a_task(workshop: Workshop) -> None:
    """A source or target whose module lacks an ability that a task needs is refused before anything is done; vendor,
    task and ability are named."""
    application = notebook()
    deployment = await deployed(workshop, application, "alpha")
    for vendor, capability, task in (
        ("alpha", MachineBundle, "bundle-machine-web"),
        ("alpha", Power, "stop-web"),
        ("beta", KeyPairs, "key-pair-beta"),
    ):
        whole = workshop.modules[vendor]
        workshop.modules[vendor] = without(capability, whole)
        with refusal("vendor-unsupported") as error:
            await planned(workshop, application, deployment, "beta")
        workshop.modules[vendor] = whole
        message = error.value.problem.message
        assert message == f"{vendor} cannot do {task}: its module has no {capability.__name__}"
