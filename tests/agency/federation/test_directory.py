"""The directory: who is registered, for how long, by whom, and who is asked for a call."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agency.federation.directory import Directory, DirectoryAgent
from agency.messaging.agent import RoleAgent
from agency.messaging.links.in_process import InProcessLink
from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from broker.discovery import search_for, unable
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.directory import Registration, Search, SearchResult
from descriptors.resources import ResourceClass, ResourceType
from tests.agency.messaging.conftest import Hire

NOW = utc_now()
ALPINE = Registration(
    vendor="alpine",
    agent="vendor-alpine@test",
    until=NOW + timedelta(minutes=1),
    currency="EUR",
    services=("compute", "block"),
    regions=("zurich",),
    jurisdictions=("CH",),
)
MACHINE = ResourceClass(name="web", type=ResourceType.COMPUTE, cores=1, memory_mib=512)


def call(*resources: ResourceClass, **requirements: object) -> CallForProposals:
    """A call for these, or for a machine."""
    return CallForProposals.model_validate(
        {
            "id": "call-1", "application": "notes", "purpose": "deployment", "issued": NOW,
            "reply_by": NOW + timedelta(seconds=5), "requirements": requirements,
            "resources": resources or (MACHINE,),
        }
    )  # fmt: skip


async def test_a_registration_lasts_as_long_as_its_lease() -> None:
    """Who does not register again is gone when its lease ends, and at once when it says so or cannot be reached."""
    directory = Directory()
    directory.register(ALPINE, NOW)
    assert directory.alive(NOW) == [ALPINE]
    assert directory.alive(ALPINE.until) == []
    directory.gone(ALPINE.agent, NOW)
    assert directory.alive(NOW) == []
    directory.register(ALPINE, NOW)
    directory.register(ALPINE.model_copy(update={"until": NOW}), NOW)
    assert directory.alive(NOW) == []


async def test_no_lease_is_for_ever() -> None:
    """A directory grants an hour at most, whatever is asked for."""
    directory = Directory()
    directory.register(ALPINE.model_copy(update={"until": NOW + timedelta(days=365)}), NOW)
    assert directory.alive(NOW + timedelta(hours=2)) == []


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (call(), None),
        (call(currency="USD"), "other-currency"),
        (call(regions=("paris", "oslo")), "other-region"),
        (call(regions=("paris", "zurich")), None),
        (call(jurisdictions=("EU",)), "other-jurisdiction"),
        (call(MACHINE, ResourceClass(name="files", type=ResourceType.STORAGE, kind="object")), "no-such-service"),
        (call(ResourceClass(name="data", type=ResourceType.STORAGE, kind="block", size_mib=64)), None),
    ],
)
def test_only_who_could_serve_a_call_is_asked(wanted: CallForProposals, code: str | None) -> None:
    """What a vendor says of itself excludes it, with a reason, where it cannot serve; nothing else does."""
    reason = unable(ALPINE, search_for(wanted))
    assert (reason and reason.code) == code
    unknown = Registration(vendor="alpine", agent="vendor-alpine@test", until=ALPINE.until)
    assert unable(unknown, search_for(wanted)) is None


def alpine(**changes: object) -> Registration:
    """The same, under a lease that begins now."""
    return ALPINE.model_copy(update={"until": utc_now() + timedelta(minutes=1), **changes})


@pytest.fixture
async def directory(link: InProcessLink, site: Site) -> DirectoryAgent:
    """The directory of the site ``test``, which trusts the site ``abroad``."""
    abroad = SiteKey.generate("abroad")
    trusting = Site(
        site.key, TrustedKeys([("test", site.key.public), ("abroad", abroad.public)]), Replays(), site._store
    )
    agent = DirectoryAgent("directory@test", link, trusting)
    await agent.start()
    return agent


async def test_an_agent_registers_itself_and_nobody_else(directory: DirectoryAgent, hire: Hire) -> None:
    """A registration in another agent's name is refused, and so is one from another site."""
    agent = await hire("vendor-alpine")
    await ask(agent, "directory@test", alpine(), Registration)
    assert [each.vendor for each in directory.known.alive(utc_now())] == ["alpine"]
    mallory = await hire("mallory")
    with pytest.raises(AgencyError) as refused:
        await ask(mallory, "directory@test", alpine(until=utc_now()), Registration)
    assert refused.value.problem.code == "not-allowed"
    assert [each.vendor for each in directory.known.alive(utc_now())] == ["alpine"]


async def test_who_announces_itself_is_seen_to_come_and_go(
    directory: DirectoryAgent, link: InProcessLink, hire: Hire
) -> None:
    """A vendor that has announced itself is gone when its agent stops, with the moment, and its call is not waited for;
    it counts again as soon as it is back. Who never registered is not in the directory, whatever it announces."""
    agent = await hire("vendor-alpine")
    await link.announce(agent, "directory@test")
    assert directory.known.all(utc_now()) == []
    await ask(agent, "directory@test", alpine(), Registration)
    await agent.stop()
    (left,) = directory.known.all(utc_now())
    assert left.gone is not None
    assert directory.known.alive(utc_now()) == []
    found = await directory.find(call())
    assert (found.agents, found.unable["alpine"].code) == ({}, "away")
    assert (await directory.search(Search())).registrations == ()
    assert (await directory.search(Search(gone=True))).registrations == (left,)
    await link.announce(await hire("vendor-alpine"), "directory@test")
    assert (await directory.find(call())).agents == {"alpine": "vendor-alpine@test"}


async def test_sites_that_are_trusted_are_searched(directory: DirectoryAgent, link: InProcessLink, site: Site) -> None:
    """The vendors of a trusted site are found, under their own names; those that a directory names elsewhere are not;
    where two sites have a vendor of one name, ours is asked; nor does a site that is not trusted get an answer, or a
    trusted one that of a third."""
    home = SiteKey.generate("abroad")
    theirs = DirectoryAgent(
        "directory@abroad", link,
        Site(home, TrustedKeys([("abroad", home.public), ("test", site.key.public)]), Replays(), site._store),
    )  # fmt: skip
    await theirs.start()
    fjord = alpine(vendor="fjord", agent="vendor-fjord@abroad")
    theirs.known.register(fjord, utc_now())
    theirs.known.register(alpine(vendor="trick", agent="vendor-trick@elsewhere"), utc_now())
    theirs.known.register(alpine(agent="vendor-alpine@abroad"), utc_now())
    directory.known.register(alpine(), utc_now())
    found = await directory.find(call())
    assert found.agents == {"alpine": "vendor-alpine@test", "fjord": "vendor-fjord@abroad"}
    listed = await directory.search(Search(site="abroad"))
    assert [each.vendor for each in listed.registrations] == ["alpine", "fjord", "trick"]
    with pytest.raises(AgencyError) as refused:
        await ask(theirs, "directory@test", Search(site="nowhere"), SearchResult)
    assert refused.value.problem.code == "not-allowed"
    stranger = RoleAgent("directory@nowhere", link)
    await stranger.start()
    with pytest.raises(AgencyError) as refused:
        await ask(stranger, "directory@test", Search(), SearchResult)
    assert refused.value.problem.code == "not-allowed"


async def test_only_the_agent_of_our_account_speaks_for_a_vendor(link: InProcessLink, site: Site) -> None:
    """Where there is an account with a vendor, no other agent is asked in its name: not one of this site's, nor is one
    of a trusted site asked in place of ours that is away."""
    agent = DirectoryAgent("directory@test", link, site, {"alpine": "vendor-alpine@abroad", "ours": "vendor-ours@test"})
    agent.known.register(alpine(), utc_now())
    agent.known.register(alpine(vendor="ours", agent="vendor-ours@abroad"), utc_now())
    agent.known.register(alpine(vendor="fjord", agent="vendor-fjord@test"), utc_now())
    assert (await agent.find(call())).agents == {"fjord": "vendor-fjord@test"}
    agent.known.register(alpine(agent="vendor-alpine@abroad"), utc_now())
    assert (await agent.find(call())).agents["alpine"] == "vendor-alpine@abroad"


async def test_a_site_that_is_away_holds_nobody_up(directory: DirectoryAgent) -> None:
    """A trusted site whose directory cannot be reached is left out."""
    directory.known.register(alpine(), utc_now())
    assert (await directory.find(call())).agents == {"alpine": "vendor-alpine@test"}
