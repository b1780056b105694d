"""A call for proposals that is out is called off: vendors hear of it, and the application is what it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import select

from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.store.models import ConversationRow
from descriptors.application import Application
from descriptors.comparison import Comparison
from descriptors.messages import Request
from descriptors.negotiation import Mandate
from descriptors.sla import Agreement
from tests.agency.agents.conftest import Society
from tests.agency.toys import notebook

SOON = 30.0


async def states(society: Society) -> set[tuple[str, str, str]]:
    """Who stands how in which conversation."""
    async with society.workshop.store.transaction() as session:
        rows = await session.scalars(select(ConversationRow))
        return {(row.agent.partition("@")[0], row.id, row.state) for row in rows}


async def comes_to(society: Society, agent: str, state: str, call: str = "") -> None:
    """Wait until the agent stands like that in the call, or in any."""
    while not [each for each in await states(society) if each == (agent, call or each[1], state)]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def called_off(society: Society, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[object]]) -> str:
    """Do that, cancel it when beta has offered and alpha still thinks about it; gives the call's id."""
    module, thinking = society.workshop.modules["alpha"], asyncio.Event()

    async def think(_: object) -> object:
        thinking.set()
        return await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(module, "propose", think)
        doing = asyncio.ensure_future(work())
        async with asyncio.timeout(SOON):
            await thinking.wait()
            await comes_to(society, "vendor-beta", "offered")
            cancelled = (await society.request("cancel", "notes", Request)).subject
            with pytest.raises(AgencyError) as error:
                await doing
            assert error.value.problem.code == "cancelled"
            await comes_to(society, "vendor-beta", "cancelled", cancelled)
    assert not {each for each in await states(society) if each[2] == "calling"}
    return cancelled


async def test_a_submission_is_called_off(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was asked hears of it; there is no application, as before; it can be submitted again."""
    await called_off(society, monkeypatch, lambda: society.submit(notebook()))
    store = society.workshop.store
    assert await store.find(Application, "notes") is None
    assert await store.all(Comparison) == []
    with pytest.raises(AgencyError) as error:
        await society.request("cancel", "notes", Request)
    assert error.value.problem.code == "not-busy"
    assert (await society.deployed(notebook())).status == "running"


async def test_another_descriptor_is_called_off(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor is the one that there was before; what was offered for that can be accepted still."""
    chosen = (await society.submit(notebook())).chosen
    assert chosen is not None
    await called_off(society, monkeypatch, lambda: society.submit(notebook(price_cap=5)))
    assert await society.workshop.store.get(Application, "notes") == notebook()
    assert (await society.request("accept", chosen.id, Agreement)).offer == chosen.id


async def test_a_negotiation_is_called_off(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negotiation ends, and the offers that there were before stand."""
    chosen = (await society.submit(notebook())).chosen
    assert chosen is not None
    mandate = Mandate(application="notes", purpose="deployment")
    mediator = society.deployer.link.address("mediator")

    async def negotiate() -> Comparison:
        return await ask(society.deployer, mediator, mandate, Comparison)

    await called_off(society, monkeypatch, negotiate)
    assert (await society.request("accept", chosen.id, Agreement)).offer == chosen.id
