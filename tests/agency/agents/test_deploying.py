"""From a descriptor to a running application, and away again: what each step demands and what it leaves behind."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import httpx
import pytest
from blake3 import blake3

from agency import janitor, records
from agency.agents import addresses, vendor
from agency.agents.mediator import live_deployment
from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.relocation.outcome import terminate
from descriptors.application import Application, File
from descriptors.base import new_id, utc_now
from descriptors.comparison import Comparison, Composition
from descriptors.deployment import Deployment
from descriptors.messages import Request
from descriptors.sla import Agreement, Offer
from tests.agency.agents.conftest import Society
from tests.agency.toys import Cloud, notebook


def offers(comparison: Comparison) -> dict[str, Offer]:
    """The offers of a comparison, by vendor."""
    return {row.vendor: row.offer for row in comparison.rows if row.offer}


def refusal(code: str) -> Any:
    """Expects an :class:`AgencyError` with that code."""
    return pytest.raises(AgencyError, check=lambda error: error.problem.code == code)


async def get(url: str) -> bytes:
    """What the world sees at that URL."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:  # noqa: S501 - plain HTTP on loopback
        return (await http.get(url)).content


def empty(cloud: Cloud) -> bool:
    """Whether the account holds nothing."""
    return cloud.held == {}


# --- submitting ---


@pytest.mark.parametrize("digest", [None, f"blake3:{blake3(b'never uploaded').hexdigest()}"], ids=["none", "unknown"])
async def test_files_must_be_uploaded_first(society: Society, digest: str | None) -> None:
    """A descriptor whose files are not in the agency's store is refused, and nothing of it is kept."""
    application = notebook()
    component = application.components[0]
    file = File(source="notes.conf", target="notes.conf", digest=digest)
    component = component.model_copy(update={"files": (file,)})
    tier = application.tiers[0].model_copy(update={"components": (component,)})
    with refusal("file-missing") as error:
        await society.submit(application.model_copy(update={"tiers": (tier,)}))
    assert "notes.conf" in error.value.problem.message
    assert await society.workshop.store.find(Application, "notes") is None


async def test_every_vendor_is_in_the_comparison(society: Society) -> None:
    """Each vendor has a row: the cheapest is chosen, and who has no block storage is left out with that reason."""
    comparison = await society.submit(notebook())
    rows = {row.vendor: row for row in comparison.rows}
    assert set(rows) == {"alpha", "beta", "cirrus"}
    assert comparison.chosen == rows["alpha"].offer
    assert [reason.code for reason in rows["cirrus"].excluded_because] == ["no-block-storage"]
    for offer in offers(comparison).values():
        assert await society.workshop.store.get(Offer, offer.id) == offer


async def test_a_vendor_that_cannot_be_deployed_to_is_left_out(
    society: Society, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module without a capability that deploying takes makes no offer, however cheap it is: the reason names it."""
    monkeypatch.setattr(vendor, "TO_DEPLOY", ("machines", "clusters"))
    comparison = await society.submit(notebook())
    assert comparison.chosen is None
    for row in comparison.rows:
        (reason,) = row.excluded_because
        assert (reason.code, reason.required) == ("missing-capability", "clusters")


async def test_a_vendor_out_of_reach_is_a_row_too(society: Society) -> None:
    """A vendor that cannot be reached is shown with that reason, and the others' offers stand."""
    society.clouds["alpha"].away = True
    comparison = await society.submit(notebook())
    (reason,) = next(row for row in comparison.rows if row.vendor == "alpha").excluded_because
    assert reason.code == "vendor-unavailable"
    assert comparison.chosen is not None
    assert comparison.chosen.vendor == "beta"


async def test_a_deployed_application_s_descriptor_stays(society: Society) -> None:
    """While an application holds resources its descriptor cannot be replaced."""
    await society.deployed(notebook())
    with refusal("already-deployed"):
        await society.submit(notebook(front=True))
    assert await society.workshop.store.get(Application, "notes") == notebook()


async def test_an_agreed_application_s_descriptor_stays(society: Society) -> None:
    """Once an offer is accepted the descriptor that it was made for stays: the agreement would not cover another."""
    chosen = (await society.submit(notebook())).chosen
    await society.request("accept", chosen.id, Agreement)
    with refusal("already-agreed"):
        await society.submit(notebook(front=True))
    assert (await society.request("deploy", "notes")).status == "running"


# --- accepting ---


async def test_accepting_twice_gives_the_same_agreement(society: Society) -> None:
    """The second acceptance of an offer returns the first's agreement, also when both come at once."""
    chosen = (await society.submit(notebook())).chosen
    both = await asyncio.gather(*(society.request("accept", chosen.id, Agreement) for _ in range(2)))
    again = await society.request("accept", chosen.id, Agreement)
    assert both == [again, again]
    assert len(await society.workshop.store.all(Agreement)) == 1


async def test_an_offer_that_is_not_stood_by_is_remembered(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor that forgets its offer before it expires has that in its record, and comes later the next time."""
    chosen = (await society.submit(notebook())).chosen

    async def forgotten(_: object, offer_id: str) -> None:
        assert offer_id == chosen.id

    persistence = society.workshop.modules[chosen.vendor].services.persistence
    with monkeypatch.context() as forgetful:
        forgetful.setattr(type(persistence), "proposal", forgotten)
        with refusal("not-offered"):
            await society.request("accept", chosen.id, Agreement)
    found = await records.records(society.workshop.store)
    assert [(i.about, i.code) for i in found[chosen.vendor].incidents] == [(chosen.id, "not-stood-by")]
    row = next(row for row in (await society.submit(notebook())).rows if row.vendor == chosen.vendor)
    (criterion,) = (c for c in row.criteria if c.attribute == "record")
    assert (criterion.value, criterion.utility < 1) == ("1 of 1 agreements broken", True)


async def test_a_vendor_that_lets_a_deployment_fail_has_it_in_its_record(society: Society) -> None:
    """An agreement is counted, and so is that nothing could be deployed under it because its vendor was away."""
    chosen = (await society.submit(notebook())).chosen
    await society.request("accept", chosen.id, Agreement)
    society.clouds[chosen.vendor].away = True
    with refusal("vendor-unavailable"):
        await society.request("deploy", "notes")
    record = (await records.records(society.workshop.store))[chosen.vendor]
    assert (record.agreements, record.broken, record.incidents[0].code) == (1, 1, "failed-to-deliver")


async def test_one_agreement_at_a_time(society: Society) -> None:
    """While one agreement is observed another vendor's offer is refused, and the message names the agreement."""
    found = offers(await society.submit(notebook()))
    agreement = await society.request("accept", found["alpha"].id, Agreement)
    with refusal("already-agreed") as error:
        await society.request("accept", found["beta"].id, Agreement)
    assert agreement.id in error.value.problem.message


async def test_two_offers_accepted_at_once_give_one_agreement(society: Society) -> None:
    """Of two offers that are accepted at the same moment one wins."""
    found = offers(await society.submit(notebook()))
    results = await asyncio.gather(
        *(society.request("accept", found[vendor].id, Agreement) for vendor in ("alpha", "beta")),
        return_exceptions=True,
    )
    assert [isinstance(result, Agreement) for result in results].count(True) == 1
    assert len(await society.workshop.store.all(Agreement)) == 1


async def test_an_excluded_offer_cannot_be_accepted(society: Society) -> None:
    """An offer that breaks a requirement is refused with the broker's reason."""
    found = offers(await society.submit(notebook(price_cap=Decimal(9))))
    with refusal("excluded") as error:
        await society.request("accept", found["beta"].id, Agreement)
    assert "over the cap" in error.value.problem.message


async def test_an_unknown_offer(society: Society) -> None:
    """Accepting what was never offered names the offer."""
    with refusal("not-found") as error:
        await society.request("accept", "offer-0123456789abcdef", Agreement)
    assert "offer-0123456789abcdef" in error.value.problem.message


async def test_an_offer_that_came_too_late(society: Society) -> None:
    """An offer that its vendor remembers, and that no comparison holds, is refused in clear words."""
    comparison = await society.submit(notebook())
    late = offers(comparison)["alpha"].model_copy(update={"id": "offer-fedcba9876543210"})
    await society.workshop.store.put(late, id=late.id)
    with refusal("excluded"):
        await society.request("accept", late.id, Agreement)


async def test_an_expired_offer(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """An offer that has expired since it was compared is refused by its vendor."""
    chosen = (await society.submit(notebook())).chosen
    monkeypatch.setattr(vendor, "utc_now", lambda: chosen.expires)
    with refusal("expired"):
        await society.request("accept", chosen.id, Agreement)
    assert await society.workshop.store.all(Agreement) == []


async def test_an_offer_for_an_earlier_descriptor(society: Society) -> None:
    """After a changed descriptor was submitted, the offers for the one before it are refused."""
    before = offers(await society.submit(notebook()))["alpha"]
    await society.submit(notebook(jurisdictions=("EU",)))
    with refusal("outdated"):
        await society.request("accept", before.id, Agreement)


# --- deploying ---


async def test_deployed_is_running_and_answers(society: Society) -> None:
    """A deployed application runs at the chosen vendor, answers at its endpoint, and is configured by its rules."""
    deployment = await society.deployed(notebook())
    cloud = society.clouds["alpha"]
    assert (deployment.status, deployment.vendor_of("web")) == ("running", "alpha")
    assert len(await get(f"{deployment.endpoints[0].url}/content")) == 2**20
    machine = deployment.the("machine", component="web")
    config = cloud.config(machine.id)
    key = cloud.held[deployment.the("access-key", resource="pictures").id]
    assert config["device"] == "dev/vdb"
    assert (config["endpoint"], config["access_key"]) == (key.endpoint, key.access_key)
    assert config["secret_key"] == key.secret_key.get_secret_value()
    assert key.internal


async def test_what_the_cloud_holds_is_what_is_recorded(society: Society) -> None:
    """Every resource is in the deployment, under the key and the agreement that it was made with; there is no other."""
    deployment = await society.deployed(notebook(front=True))
    cloud = society.clouds["alpha"]
    assert {resource.id for resource in deployment.resources} == set(cloud.held)
    assert {resource.key for resource in deployment.resources} == {found.key for found in cloud.held.values()}
    assert {resource.agreement for resource in deployment.resources} == set(deployment.agreements)
    assert empty(society.clouds["beta"])
    assert await janitor.find_leaks(society.workshop) == []


async def test_a_component_is_told_where_the_other_is(society: Society) -> None:
    """A rule's ``{component.NAME.url}`` becomes the public URL of the component that is depended upon."""
    deployment = await society.deployed(notebook(front=True))
    urls = {endpoint.component: endpoint.url for endpoint in deployment.endpoints}
    door = deployment.the("machine", component="door")
    assert society.clouds["alpha"].config(door.id)["backend"] == urls["web"]


async def test_deploying_twice_is_deploying_once(society: Society) -> None:
    """A second request returns the same deployment and creates nothing."""
    deployment = await society.deployed(notebook())
    held = set(society.clouds["alpha"].held)
    assert await society.request("deploy", "notes") == deployment
    assert set(society.clouds["alpha"].held) == held


async def test_deploying_twice_at_once_is_deploying_once(society: Society) -> None:
    """Requests that come at the same moment join one deployment."""
    chosen = (await society.submit(notebook())).chosen
    await society.request("accept", chosen.id, Agreement)
    first, second = await asyncio.gather(*(society.request("deploy", "notes") for _ in range(2)))
    assert first == second
    assert {resource.id for resource in first.resources} == set(society.clouds["alpha"].held)


async def test_no_deployment_without_an_agreement(society: Society) -> None:
    """What was submitted and not accepted is not deployed."""
    await society.submit(notebook())
    with refusal("no-agreement"):
        await society.request("deploy", "notes")


@pytest.mark.parametrize("action", ["deploy", "start", "stop", "destroy", "plan-relocation", "cancel"])
async def test_an_unknown_application(society: Society, action: Any) -> None:
    """Whatever is asked of an application that there is not, the answer names it and is no internal error."""
    with pytest.raises(AgencyError, match="ghost") as error:
        await society.request(action, "ghost")
    assert error.value.problem.code in {"not-found", "not-deployed", "not-busy"}


async def test_an_action_that_nobody_does(society: Society) -> None:
    """A request for an action that there is not is not understood, and nothing is crashed upon."""
    dance = Request(action="start", subject="notes").model_copy(update={"action": "dance"})
    with refusal("not-understood"):
        await ask(society.deployer, society.deployer.link.address(addresses.MEDIATOR), dance, Deployment)


async def test_a_deployment_that_fails_leaves_nothing(society: Society) -> None:
    """When a component does not come to life everything is removed, the agreement ends, and a new one can be made."""
    cloud = society.clouds["alpha"]
    application = notebook()
    chosen = (await society.submit(application)).chosen
    agreement = await society.request("accept", chosen.id, Agreement)
    cloud.spoil = lambda content: 1 // 0  # its machines crash when they are asked for their content
    with pytest.raises(AgencyError, match="verify-web failed"):
        await society.request("deploy", "notes")
    assert empty(cloud)
    store = society.workshop.store
    assert (await store.get(Agreement, agreement.id)).state == "terminated"
    assert await live_deployment(society.workshop, "notes") is None
    assert await store.cleanups() == []
    cloud.spoil = bytes
    assert (await society.deployed(application)).status == "running"


async def test_another_agent_s_agreement_is_not_for_our_account(society: Society) -> None:
    """What was agreed with one agent is not deployed, nor its offer accepted, when another speaks for the account."""
    first = (await society.submit(notebook())).chosen
    assert first is not None
    await society.request("accept", first.id, Agreement)
    later = (await society.submit(notebook("memo"))).chosen
    assert later is not None
    society.workshop.agents[first.vendor] = "vendor-alpha@agency.elsewhere"
    for action, subject in (("deploy", "notes"), ("accept", later.id)):
        with refusal("other-agent"):
            await society.request(action, subject)
    assert empty(society.clouds[first.vendor])
    await society.request("destroy", "notes")


async def test_an_image_that_the_vendor_has_not(society: Society) -> None:
    """A component that starts from an unknown image is refused with the images that there are."""
    application = notebook()
    component = application.components[0].model_copy(update={"image": "temple-os"})
    tier = application.tiers[0].model_copy(update={"components": (component,)})
    with refusal("no-such-image") as error:
        await society.deployed(application.model_copy(update={"tiers": (tier,)}))
    assert "it has: base" in error.value.problem.message
    assert empty(society.clouds["alpha"])


# --- starting, stopping, destroying ---


async def test_stop_and_start_keep_the_data(society: Society) -> None:
    """A stopped application answers nobody; started again it answers at the same place with the same data."""
    deployment = await society.deployed(notebook())
    cloud, machine = society.clouds["alpha"], deployment.the("machine", component="web").id
    cloud.write(machine, b"dear diary")
    stopped = await society.request("stop", "notes")
    assert (stopped.status, stopped.revision) == ("stopped", deployment.revision + 1)
    assert cloud.published() == []
    assert (await society.request("stop", "notes")).status == "stopped"
    started = await society.request("start", "notes")
    assert started.status == "running"
    assert started.endpoints == deployment.endpoints
    assert (await get(f"{started.endpoints[0].url}/content")).startswith(b"dear diary")


@pytest.mark.parametrize("action", ["start", "stop", "destroy"])
async def test_what_is_not_deployed(society: Society, action: Any) -> None:
    """Starting, stopping and destroying what was only submitted is refused."""
    await society.submit(notebook())
    with refusal("not-deployed"):
        await society.request(action, "notes")


@pytest.mark.parametrize("action", ["start", "stop", "destroy"])
async def test_not_while_an_operation_is_under_way(society: Society, action: Any) -> None:
    """While an operation works on the application nothing else may."""
    society.workshop.busy["notes"] = "plan-0123456789abcdef"
    with refusal("busy") as error:
        await society.request(action, "notes")
    assert "plan-0123456789abcdef" in error.value.problem.message


async def test_destroying_leaves_nothing(society: Society) -> None:
    """After ``destroy`` no vendor holds anything, the agreement has ended, and the descriptor may be submitted anew."""
    deployment = await society.deployed(notebook(front=True))
    destroyed = await society.request("destroy", "notes")
    assert (destroyed.status, destroyed.resources, destroyed.endpoints) == ("destroyed", (), ())
    assert all(map(empty, society.clouds.values()))
    store = society.workshop.store
    assert {a.state for a in await store.all(Agreement)} == {"terminated"}
    assert await store.cleanups() == []
    with refusal("not-deployed"):
        await society.request("destroy", "notes")
    again = await society.deployed(notebook())
    assert again.id != deployment.id


async def test_destroying_an_agreed_application_ends_the_agreement(society: Society) -> None:
    """What was accepted and never deployed is let go of by ``destroy``: a new offer can then be accepted, one of the
    same call cannot, as who made it was told that it was not chosen."""
    found = offers(await society.submit(notebook()))
    ended = await society.request("accept", found["alpha"].id, Agreement)
    assert (await society.request("destroy", "notes")).status == "destroyed"
    assert (await society.workshop.store.get(Agreement, ended.id)).state == "terminated"
    with pytest.raises(AgencyError, match="no call leads to two agreements"):
        await society.request("accept", found["beta"].id, Agreement)
    again = offers(await society.submit(notebook()))
    agreement = await society.request("accept", again["beta"].id, Agreement)
    assert (agreement.provider, agreement.state) == ("beta", "observed")


async def test_a_deployment_that_never_began_can_be_destroyed(society: Society) -> None:
    """A crash between the record of a deployment and its beginning leaves no circle: it can be destroyed."""
    found = offers(await society.submit(notebook()))
    agreement = await society.request("accept", found["alpha"].id, Agreement)
    recorded = Deployment(
        id=new_id("deployment"), application="notes", revision=1, changed=utc_now(), status="deploying",
        agreements=(agreement.id,), resources=(), endpoints=(),
    )  # fmt: skip
    await society.workshop.store.insert(recorded, id=recorded.id, application="notes")
    assert (await society.request("destroy", "notes")).status == "destroyed"
    assert (await society.workshop.store.get(Agreement, agreement.id)).state == "terminated"
    assert (await society.deployed(notebook())).status == "running"


async def test_history_that_cannot_be_written_fails_nothing(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """When events cannot be remembered, as on a full disk, the work that they tell of goes on."""

    async def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(society.workshop.store, "record_event", full)
    assert (await society.deployed(notebook())).status == "running"


async def test_a_vendor_out_of_reach_is_cleaned_up_later(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be destroyed now is remembered; the janitor removes it once the vendor is back, and never before."""
    monkeypatch.setattr(janitor, "PERIOD", 0.02)
    monkeypatch.setattr(janitor, "LONGEST_PERIOD", 0.05)
    deployment = await society.deployed(notebook())
    cloud, store = society.clouds["alpha"], society.workshop.store
    cloud.away = True
    assert (await society.request("destroy", "notes")).status == "destroyed"
    pending = await store.cleanups()
    assert {(c.vendor, c.kind, c.key) for c in pending} == {("alpha", r.kind, r.key) for r in deployment.resources}
    tidying = asyncio.create_task(janitor.keep_tidy(society.workshop))
    try:
        for _ in range(3000):
            if any(cleanup.attempts >= 2 for cleanup in await store.cleanups()):
                break
            await asyncio.sleep(0.02)
        assert len(await store.cleanups()) == len(pending)
        assert "out of reach" in ((await store.cleanups())[0].last_error or "")
        cloud.away = False
        for _ in range(3000):
            if not await store.cleanups():
                break
            await asyncio.sleep(0.02)
    finally:
        tidying.cancel()
    assert await store.cleanups() == []
    assert empty(cloud)


async def test_agents_answer_what_they_do_not_understand(society: Society) -> None:
    """An agent that is asked with a document that is not for it says so; it does not fall silent."""
    deployment = Deployment(
        id="d", application="a", revision=1, changed="2026-11-20T12:00:00Z", status="failed", agreements=("x",)
    )
    for address in (addresses.MEDIATOR, addresses.BROKER, addresses.PROVISIONER, addresses.RELOCATOR):
        with refusal("not-understood"):
            await ask(society.deployer, society.deployer.link.address(address), deployment, Deployment)


async def test_the_broker_asks_only_the_vendors_named(society: Society) -> None:
    """A call that names vendors goes to them alone, and an unknown name is refused with the names there are."""
    with refusal("unknown-vendor") as error:
        await society.deployed(notebook())
        await society.request("plan-relocation", "notes", vendor="zeta")
    assert "alpha, beta, cirrus" in error.value.problem.message


# --- several vendors ---


async def composition(society: Society) -> tuple[Application, Composition]:
    """An application whose front is cheap at cirrus, which has no volumes, and the composition that is offered."""
    society.clouds["cirrus"].per_hour = Decimal("0.001")
    application = notebook(front=True)
    (row,) = (row for row in (await society.submit(application)).rows if row.composition)
    assert row.chosen
    assert row.composition
    return application, row.composition


async def test_a_composition_is_accepted_as_a_whole(society: Society) -> None:
    """Every offer becomes an agreement, for its components; accepting again gives the same; the application runs."""
    _, chosen = await composition(society)
    for _ in range(2):
        assert await society.request("accept", chosen.id, Composition) == chosen
    agreements = await society.workshop.store.all(Agreement)
    assert {a.provider: a.components for a in agreements} == {"alpha": ("web",), "cirrus": ("door",)}
    deployment = await society.request("deploy", "notes")
    assert deployment.agreements == tuple(agreement.id for agreement in agreements)
    assert (deployment.vendor_of("web"), deployment.vendor_of("door")) == ("alpha", "cirrus")
    by_vendor = {agreement.provider: agreement.id for agreement in agreements}
    assert all(resource.agreement == by_vendor[resource.vendor] for resource in deployment.resources)
    await society.request("destroy", "notes")
    assert all(empty(cloud) for cloud in society.clouds.values())
    assert {agreement.state for agreement in await society.workshop.store.all(Agreement)} == {"terminated"}


async def test_when_one_vendor_backs_out_no_agreement_stays(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """An acceptance that fails half way ends what was agreed with the others, and nothing can be deployed."""
    _, chosen = await composition(society)
    persistence = society.workshop.modules["alpha"].services.persistence
    known = type(persistence).proposal

    async def forgotten(self: Any, offer_id: str) -> Offer | None:
        return None if offer_id == chosen.offers[1].id else await known(self, offer_id)

    monkeypatch.setattr(type(persistence), "proposal", forgotten)
    with refusal("not-offered"):
        await society.request("accept", chosen.id, Composition)
    assert [agreement.state for agreement in await society.workshop.store.all(Agreement)] == ["terminated"]
    with refusal("no-agreement"):
        await society.request("deploy", "notes")


async def test_an_agreement_for_a_part_is_not_enough(society: Society) -> None:
    """Where a component has no agreement, nothing is deployed: the message names it."""
    _, chosen = await composition(society)
    await society.request("accept", chosen.id, Composition)
    first = (await society.workshop.store.all(Agreement))[0]
    await terminate(society.workshop, first)
    with refusal("agreement-missing") as error:
        await society.request("deploy", "notes")
    assert first.components[0] in error.value.problem.message
    assert all(empty(cloud) for cloud in society.clouds.values())


async def test_a_vendor_out_of_reach_leaves_nothing_of_a_composition(society: Society) -> None:
    """When one vendor is gone as its part is to be made, the other's is removed, and both agreements end."""
    _, chosen = await composition(society)
    await society.request("accept", chosen.id, Composition)
    society.clouds["cirrus"].away = True
    with refusal("vendor-unavailable"):
        await society.request("deploy", "notes")
    assert empty(society.clouds["alpha"])
    assert {agreement.state for agreement in await society.workshop.store.all(Agreement)} == {"terminated"}
