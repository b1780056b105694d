"""What an application really consists of, when its parts live at several vendors."""

from __future__ import annotations

import pytest

from agency.relocation.conduit import introspect, place
from agency.relocation.workshop import Workshop
from descriptors.deployment import Deployment
from tests.agency.relocation.helpers import carry_out, deployed, order_for, planned
from tests.agency.toys import Cloud, notebook

pytestmark = pytest.mark.usefixtures("dbos")


async def test_resources_of_several_vendors_are_told_apart(workshop: Workshop, clouds: dict[str, Cloud]) -> None:
    """After a component moved alone there is a key pair at each vendor: each is found, or missed."""
    application = notebook(front=True)
    deployment = await deployed(workshop, application, "alpha")
    plan = await planned(workshop, application, deployment, "beta", "door")
    await carry_out(await order_for(workshop, application, deployment, plan))
    split = await workshop.store.get(Deployment, deployment.id)
    stayed, came = split.all("key-pair")
    assert (stayed.name, stayed.vendor, came.name, came.vendor) == ("key-pair-alpha", "alpha", "key-pair-beta", "beta")

    whole = await introspect(workshop.modules, split)
    assert set(whole.found) == {place(resource) for resource in split.resources}
    assert whole.found[place(came)].id == came.id

    del clouds["alpha"].held[stayed.id]
    assert (await introspect(workshop.modules, split)).missing == (stayed,)
