"""Configuration rules: values are taken literally, and a rule that matches nothing is an error."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agency.problems import AgencyError
from agency.relocation.migrators import configuration
from agency.relocation.migrators.configuration import disk_path, rewrite, rewritten, values
from agency.relocation.workshop import Output, Run, Workshop
from descriptors.application import Command, Component, File, Rewrite, VolumeUse
from descriptors.deployment import Deployment
from tests.agency.relocation.helpers import agreed, carry_out, deployed, offered, order_for, planned
from tests.agency.toys import Cloud, notebook

pytestmark = [
    pytest.mark.usefixtures("dbos"),
    # DBOS's threads draw random numbers while Hypothesis watches for strategies that do
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]

# what a file may hold and a document may carry: rules that are given as XML know no other characters
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))
tricky = st.sampled_from([r"\1", r"\g<0>", "\\", r"\n", "{x}", "{}", "}{", "$1", "&", "%s"]) | texts


def component(*rules: Rewrite) -> Component:
    """A component with a configuration file, and these rules for it."""
    return Component(
        name="web",
        resource="machine",
        volumes=(VolumeUse(resource="data"),),
        files=(File(source="a", target="conf"), File(source="b", target="other")),
        commands=(Command(phase="start", line="run"),),
        rewrites=rules,
    )


def line(value: str) -> Rewrite:
    """The rule that sets ``key`` to the value."""
    return Rewrite(file="conf", pattern=r"^key = .*$", value=f"key = {value}")


@given(st.lists(tricky, max_size=4).map("".join), texts, texts)
def test_a_value_is_literal(value: str, head: str, tail: str) -> None:
    """Backslashes, braces and whatever else mean nothing in a value: the file then holds exactly it."""
    assume(not re.search(r"\{[a-z0-9.-]+(?:_[a-z]+)*\}", value))  # a placeholder, refused by the component
    assume(not any(re.search(r"^key = ", text) for text in (head, tail)))
    before = f"{head}\nkey = old\n{tail}"
    after = rewrite(component(line(value)), "conf", before.encode(), {}).decode()
    assert after == f"{head}\nkey = {value}\n{tail}"


@given(st.lists(tricky, max_size=4).map("".join))
def test_what_is_filled_in_is_literal_too(secret: str) -> None:
    """A secret with backslashes or braces in it arrives as it is."""
    known = {"volume.data.device": secret}
    after = rewrite(component(line("<{volume.data.device}>")), "conf", b"key = old", known)
    assert after.decode() == f"key = <{secret}>"


@given(st.lists(tricky, max_size=4).map("".join), texts, st.integers(1, 3))
def test_rewriting_twice_is_rewriting_once(value: str, rest: str, times: int) -> None:
    """Rules are applied at deployment and at every relocation: with the same values nothing changes any more."""
    known = {"volume.data.device": value}
    assume(len(value.splitlines()) <= 1)  # a rule for a line keeps it a line
    rule = component(line("{volume.data.device}"))
    once = rewrite(rule, "conf", (f"key = a\n{rest}\n" * times).encode(), known)
    assert rewrite(rule, "conf", once, known) == once


def test_every_match_is_replaced_in_multi_line_mode() -> None:
    """``^`` and ``$`` are the ends of lines, and a rule works on all of its matches."""
    content = b"key = a\nother = b\nkey = c"
    assert rewrite(component(line("x")), "conf", content, {}) == b"key = x\nother = b\nkey = x"


def test_rules_apply_in_their_order_to_their_file_only() -> None:
    """A later rule sees what an earlier one wrote; other files are left as they are, whatever they hold."""
    rules = component(line("one"), Rewrite(file="conf", pattern="one", value="two"))
    assert rewrite(rules, "conf", b"key = x", {}) == b"key = two"
    assert rewrite(rules, "other", b"key = x \xff", {}) == b"key = x \xff"


def test_a_rule_that_matches_nothing() -> None:
    """The error names component, rule and file, and does not show the value: it may be a secret."""
    rule = component(line("{volume.data.device}"))
    with pytest.raises(AgencyError, match=r"web: the rule .* matches nothing in conf") as error:
        rewrite(rule, "conf", b"nothing of the kind", {"volume.data.device": "s3cret"})
    assert error.value.problem.code == "rewrite-failed"
    assert "s3cret" not in str(error.value.problem)


def test_a_file_that_is_no_text() -> None:
    """Rules are for text: other files are refused by name."""
    with pytest.raises(AgencyError, match="conf is not UTF-8"):
        rewrite(component(line("x")), "conf", b"key = \xff\xfe", {})


# for the first two an engine tries every way to split the letters; the third matches quickly, and at every place
HOPELESS = [
    (r"^# (a|a)+$", "# " + "a" * 40 + "!"),
    (r"^# (a|aa)+$", "# " + "a" * 80 + "!"),
    (r"(?=)", "a" * 5_000_000),
]


@pytest.mark.parametrize(("pattern", "text"), HOPELESS)
async def test_a_rule_that_takes_for_ever(pattern: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hopeless pattern is stopped in time with its name and its file's, and the agency goes on meanwhile."""
    monkeypatch.setattr(configuration, "REWRITE_WITHIN", 0.5)
    began, turns = time.monotonic(), 0
    rule = component(Rewrite(file="conf", pattern=pattern, value="b"))
    task = asyncio.create_task(rewritten(rule, "conf", text.encode(), {}))
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    with pytest.raises(
        AgencyError, match=r"web: the rule .* is not done within the 0.5 s that all rules for conf"
    ) as error:
        await task
    assert error.value.problem.code == "rewrite-failed"
    assert time.monotonic() - began < 20
    assert turns > 5, "the event loop had its turns"


def test_all_rules_of_a_file_share_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with many slow rules takes no longer than one with a single slow rule."""
    monkeypatch.setattr(configuration, "REWRITE_WITHIN", 0.0)
    with pytest.raises(AgencyError, match="all rules for conf may take"):
        rewrite(component(line("x"), line("y")), "conf", b"key = x", {})


def test_a_rule_that_blows_a_file_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rule makes of a file is bounded in bytes, and up to the bound it is written."""
    monkeypatch.setattr(configuration, "LARGEST_RESULT", 1024 * 1024)
    rule = component(Rewrite(file="conf", pattern="a", value="ü" * 512))
    assert len(rewrite(rule, "conf", b"a" * 1024, {})) == 1024 * 1024
    with pytest.raises(AgencyError, match=r"web: the rule 'a' makes conf larger than 1 MiB") as error:
        rewrite(rule, "conf", b"a" * 1025, {})
    assert error.value.problem.code == "rewrite-failed"


def test_a_rule_that_takes_all_memory() -> None:
    """A pattern that goes deeper and deeper until the engine gives up is refused like one that takes for ever."""
    with pytest.raises(AgencyError, match=r"the rule '\(\?R\)' takes too much memory on conf"):
        rewrite(component(Rewrite(file="conf", pattern="(?R)", value="b")), "conf", b"a", {})


async def test_values_at_a_vendor_with_and_without_block_storage(workshop: Workshop, clouds: dict[str, Cloud]) -> None:
    """The device is the attached volume's where there is one, and a file in the machine's disk where there is none."""
    application = notebook()
    deployment = await deployed(workshop, application, "alpha")
    web = application.component("web")
    for target, device in (("beta", "dev/vdb"), ("cirrus", disk_path("data"))):
        agreement = await agreed(workshop, await offered(workshop, application, target, ["web"]))
        plan = await planned(workshop, application, deployment, target)
        order = (await order_for(workshop, application, deployment, plan)).model_copy(update={"agreement": agreement})
        found = await values(web, Run(workshop, order))
        assert found["volume.data.device"] == device


async def test_secrets_are_in_the_result_only(workshop: Workshop, clouds: dict[str, Cloud]) -> None:
    """The bucket's secret reaches the machine's configuration, and neither what tasks leave for others, nor the
    store's documents and events, nor the receipt."""
    application = notebook()
    deployment = await deployed(workshop, application, "alpha")
    plan = await planned(workshop, application, deployment, "cirrus")
    result = await carry_out(await order_for(workshop, application, deployment, plan))
    now = await workshop.store.get(Deployment, deployment.id)
    machine = now.the("machine", component="web").id
    secret = clouds["cirrus"].config(machine)["secret_key"]
    assert len(secret) == 32
    assert secret not in result.model_dump_json()
    assert secret not in now.model_dump_json()
    assert not [event for event in await workshop.store.events() if secret in f"{event.text}{event.data}"]
    assert not [name for name, output in result.outputs.items() if secret in Output.model_dump_json(output)]
