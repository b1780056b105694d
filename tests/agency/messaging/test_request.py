"""FIPA Request: an action is agreed to and its result informed of, or the asker hears why not."""

from __future__ import annotations

import asyncio
import time

import pytest
from spade.message import Message

from agency.messaging import request
from agency.messaging.acl import Performative, Protocol, answer, compose, performative_of
from agency.messaging.agent import RoleAgent
from agency.messaging.request import Handlers, Responder, ask
from agency.problems import AgencyError
from descriptors.messages import Problem, Request
from descriptors.sla import Refusal
from tests.agency.messaging.conftest import Hire
from vendor_modules.errors import QuotaExceeded

DEPLOY = Request(action="deploy", subject="notes")
DONE = Request(action="start", subject="done")


def scripted(agent: RoleAgent, *script: tuple[Performative | str, object]) -> None:
    """Let the agent answer every request with prepared messages."""

    async def job(message: Message) -> None:
        for performative, content in script:
            reply = answer(message, Performative.INFORM, content)
            reply.set_metadata("performative", str(performative))
            await agent.send(reply)

    agent.take_part(Protocol.REQUEST, job)


async def pair(hire: Hire, handlers: Handlers) -> RoleAgent:
    """Anna, who may ask bob, who answers with these handlers."""
    bob = await hire("bob")
    Responder.install(bob, handlers)
    return await hire("anna")


async def asked(anna: RoleAgent, to: str = "bob@test") -> Request:
    """Anna's question, which must have an answer soon."""
    async with asyncio.timeout(30):
        return await ask(anna, to, DEPLOY, Request)


async def test_the_result_is_informed_of(hire: Hire) -> None:
    """Who asks gets the document that the handler returns for the document that was sent."""
    seen: list[Request] = []

    async def handle(content: Request) -> Request:
        seen.append(content)
        return DONE

    assert await asked(await pair(hire, {Request: handle})) == DONE
    assert seen == [DEPLOY]


async def test_agree_comes_before_the_work(hire: Hire) -> None:
    """The responder agrees at once and informs when it is done: a long action is no silence."""
    may_end, words = asyncio.Event(), asyncio.Queue()

    async def handle(_: Request) -> Request:
        await may_end.wait()
        return DONE

    anna = await pair(hire, {Request: handle})
    with anna.listening("talk-1", lambda message: words.put_nowait(performative_of(message))):
        await anna.send(compose("bob@test", Performative.REQUEST, Protocol.REQUEST, "talk-1", DEPLOY))
        async with asyncio.timeout(5):
            assert await words.get() is Performative.AGREE
            assert words.empty()
            may_end.set()
            assert await words.get() is Performative.INFORM


async def test_a_handler_s_problem_reaches_the_asker_whole(hire: Hire) -> None:
    """Code, message and remedy of a refusal are the same at both ends."""
    problem = Problem(code="busy", message="notes is busy", remedy="wait", retryable=True)

    async def handle(_: Request) -> Request:
        raise AgencyError(problem)

    with pytest.raises(AgencyError) as error:
        await asked(await pair(hire, {Request: handle}))
    assert error.value.problem == problem


async def test_a_vendor_s_error_reaches_the_asker_as_a_problem(hire: Hire) -> None:
    """Errors of the vendors' tree keep their kind and their remedy."""

    async def handle(_: Request) -> Request:
        raise QuotaExceeded("no more machines", vendor="alpha", operation="create machine")

    with pytest.raises(AgencyError, match="alpha: create machine: no more machines") as error:
        await asked(await pair(hire, {Request: handle}))
    assert error.value.problem.code == "vendor-quota-exceeded"
    assert error.value.problem.remedy == QuotaExceeded.remedy


async def test_a_crash_is_a_failure_and_the_agent_goes_on(hire: Hire) -> None:
    """A handler that crashes gives its asker a failure, without our insides, and the next request is answered."""
    answers = iter([ZeroDivisionError("secret insides"), DONE])

    async def handle(_: Request) -> Request:
        if isinstance(this := next(answers), Exception):
            raise this
        return this

    anna = await pair(hire, {Request: handle})
    with pytest.raises(AgencyError) as error:
        await asked(anna)
    assert error.value.problem.code == "internal-error"
    assert "secret insides" not in str(error.value.problem)
    assert await asked(anna) == DONE


async def test_a_document_without_a_handler_is_not_understood(hire: Hire) -> None:
    """Who asks for what nobody handles hears so, and which documents are expected."""

    async def handle(_: Refusal) -> Request:
        return DONE

    with pytest.raises(AgencyError, match="expected refusal") as error:
        await asked(await pair(hire, {Refusal: handle}))
    assert error.value.problem.code == "not-understood"


async def test_an_agent_that_is_not_there(hire: Hire) -> None:
    """Asking nobody fails at once and names the agent."""
    with pytest.raises(AgencyError, match="nobody@test"):
        await asked(await hire("anna"), "nobody@test")


async def test_silence_ends_in_a_clear_error(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not even agree is given up on after a time, and named."""
    monkeypatch.setattr(request, "AGREE_WITHIN", 0.1)
    anna, _ = await hire("anna"), await hire("mute")
    began = time.monotonic()
    with pytest.raises(AgencyError, match="mute@test does not answer") as error:
        await asked(anna, "mute@test")
    assert error.value.problem.code == "no-answer"
    assert time.monotonic() - began < 15


async def test_a_refusal_before_agreeing(hire: Hire) -> None:
    """FIPA's ``refuse`` instead of ``agree`` carries its problem to the asker."""
    problem = Problem(code="not-now", message="not now", remedy="later")
    bob = await hire("bob")
    scripted(bob, (Performative.REFUSE, problem))
    with pytest.raises(AgencyError) as error:
        await asked(await hire("anna"))
    assert error.value.problem == problem


async def test_only_the_first_result_counts(hire: Hire) -> None:
    """What an agent says after its result changes nothing."""
    bob = await hire("bob")
    late = Problem(code="oops", message="no, wait", remedy="none")
    scripted(bob, ("agree", None), ("inform", DONE), ("failure", late), ("inform", DEPLOY))
    assert await asked(await hire("anna")) == DONE


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([("agree", None), ("shout", DONE)], id="performative"),
        pytest.param([("agree", None), ("inform", Problem(code="x", message="x", remedy="x"))], id="document"),
        pytest.param([("agree", None), ("inform", None)], id="empty"),
        pytest.param([("failure", DONE)], id="failure-without-problem"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error(hire: Hire, script: list[tuple[str, object]]) -> None:
    """An agent that answers outside the protocol does not leave its asker waiting: the error says what came."""
    scripted(await hire("bob"), *script)
    with pytest.raises(AgencyError) as error:
        await asked(await hire("anna"))
    assert error.value.problem.code == "not-understood"
    assert "bob@test" in error.value.problem.message


async def test_many_requests_at_once_get_their_own_answers(hire: Hire) -> None:
    """Conversations do not mix: each asker gets the result of its own question."""

    async def handle(content: Request) -> Request:
        await asyncio.sleep(0.01 * (int(content.subject) % 3))
        return content

    anna = await pair(hire, {Request: handle})
    questions = [Request(action="deploy", subject=str(number)) for number in range(30)]
    assert await asyncio.gather(*(ask(anna, "bob@test", each, Request) for each in questions)) == questions


async def test_conversations_leave_nothing_behind(hire: Hire) -> None:
    """Nothing of a conversation that has ended is kept by its agent: a long life does not slow it down."""

    async def handle(_: Request) -> Request:
        return DONE

    anna = await pair(hire, {Request: handle})
    for _ in range(3):
        await asked(anna)
    assert not anna._conversations
    async with asyncio.timeout(30):
        while anna._work:  # noqa: ASYNC110 - a job that has ended is forgotten a turn later
            await asyncio.sleep(0)
