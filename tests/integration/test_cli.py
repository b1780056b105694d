"""The command line against a running agency: the everyday story, refusals, and what a careless user does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from agency.cli import app
from tests.labs.agency import GUESTBOOK, Guestbook, Lab, run, running_agency_process

pytestmark = pytest.mark.integration

FORMS = ("xml", "yaml", "json")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One agency for this module. Every test has an application of its own."""
    with running_agency_process(tmp_path_factory.mktemp("cli") / "state") as lab:
        yield lab


def chosen_of(offers: dict[str, list[dict[str, str]]]) -> str:
    """The id of the chosen offer."""
    return next(row["offer"] for row in offers["offers"] if row["chosen"])


def test_the_everyday_story_as_json(lab: Lab, tmp_path: Path) -> None:
    """Submit, choose, deploy, use, stop, start, relocate there and back and destroy, each with ``--json``; whatever is
    asked for twice is done once; and every document that came of it is valid in all of its forms."""
    book = Guestbook(lab, tmp_path / "book", "everyday")
    offers = lab.json("submit", book.descriptor)
    assert lab.json("offers", book.name) == offers
    assert {row["vendor"] for row in offers["offers"]} == {"aurora", "borealis", "cirrus"}
    agreement = lab.json("accept", chosen_of(offers))
    assert lab.json("accept", chosen_of(offers)) == agreement, "accepting twice gives the same agreement"
    deployment = lab.json("deploy", book.name)
    assert deployment["status"] == "running"
    assert lab.json("deploy", book.name) == deployment, "deploying twice gives the same deployment"
    book.write(("Ada", "first"), ("Žofie", "— 👋"))
    content = book.content()
    status = lab.json("status", book.name)
    assert (status["status"], status["vendors"], status["busy"]) == ("running", ["aurora"], None)
    assert [a["id"] for a in status["agreements"]] == [agreement["id"]]
    assert book.name in [row["application"] for row in lab.json("status")["applications"]]

    assert lab.json("stop", book.name)["status"] == "stopped"
    with pytest.raises(httpx.TransportError):
        book.content()
    assert lab.refused("relocate", book.name, "--to", "cirrus", "--plan")["code"] == "not-running"
    assert lab.json("start", book.name)["status"] == "running"
    assert book.content() == content

    plan = lab.json("relocate", book.name, "--to", "cirrus", "--plan")
    assert (plan["source"], plan["target"]) == ("aurora", "cirrus")
    assert book.place == "aurora", "planning moves nothing"
    receipt = lab.json("relocate", book.name, "--to", "cirrus", "--apply")
    assert (receipt["outcome"], book.place) == ("relocated", "cirrus")
    assert book.content() == content
    assert not [r for r in lab.application(book.name)["resources"] if r["kind"] == "volume"]
    assert lab.refused("relocate", book.name, "--to", "cirrus", "--apply")["code"] == "already-there"
    back = lab.json("relocate", book.name, "--to", "aurora", "--apply")
    assert (back["outcome"], book.place) == ("relocated", "aurora")
    assert [r["vendor"] for r in lab.application(book.name)["resources"] if r["kind"] == "volume"] == ["aurora"]
    assert book.content() == content
    assert [r["id"] for r in lab.json("receipts")["receipts"] if r["application"] == book.name] == [
        back["id"],
        receipt["id"],
    ]
    lab.tidy()
    documents = {
        "application": book.name, "offer": chosen_of(offers), "agreement": agreement["id"],
        "deployment": deployment["id"], "relocation-plan": plan["id"], "relocation-receipt": receipt["id"],
        "comparison": offers["call"],
    }  # fmt: skip
    assert_valid(lab, documents, tmp_path)

    assert lab.json("destroy", book.name)["status"] == "destroyed"
    assert lab.refused("destroy", book.name)["code"] == "not-deployed", "what is gone is not destroyed again"
    assert lab.json("status", book.name)["resources"] == []
    with pytest.raises(StopIteration):
        chosen_of({"offers": [row for row in lab.json("offers", book.name)["offers"] if row["vendor"] == "borealis"]})


def assert_valid(lab: Lab, documents: dict[str, str], folder: Path) -> None:
    """Each document, fetched in every form, is valid to ``agency validate``."""
    for tag, identifier in documents.items():
        for form in FORMS:
            answer = lab.client()._http.get(f"/documents/{identifier}", params={"form": form})
            assert answer.is_success, answer.text
            file = folder / f"{tag}.{form}"
            file.write_bytes(answer.content)
            result = CliRunner().invoke(app, ["validate", str(file), "--json"])
            assert (result.exit_code, json.loads(result.stdout)) == (0, {"valid": True, "document": tag}), result.stdout


def test_the_everyday_story_in_words(lab: Lab, tmp_path: Path) -> None:
    """Without ``--json`` every command says in words what a person wants to know next."""
    book = Guestbook(lab, tmp_path / "book", "wordy")

    def said(*args: str | Path) -> str:
        answer = lab.cli(*args)
        assert answer.status == 0, answer
        return answer.stdout

    offers = said("submit", book.descriptor)
    assert re.search(r"➜ +aurora", offers)
    assert "✗ borealis is left out" in offers
    assert "✗ cirrus is left out" in offers
    assert "EUR" in offers
    agreed = said("accept", chosen_of(lab.client().get(f"/applications/{book.name}/offers")))
    assert f"agency deploy {book.name}" in agreed
    assert f"{book.name} is running" in said("deploy", book.name)
    shown = said("status", book.name)
    assert book.url in shown
    assert "agreement-" in shown
    assert book.name in said("status")
    assert f"{book.name} is stopped" in said("stop", book.name)
    assert f"{book.name} is running" in said("start", book.name)
    plan = said("relocate", book.name, "--plan", "--to", "cirrus")
    for words in ("from aurora to cirrus", "→ move", "= stay", "~ adapt", "MiB to move", "of downtime", "price:"):
        assert words in plan, plan
    assert "relocated, aurora → cirrus" in said("relocate", book.name, "--apply", "--to", "cirrus")
    assert "relocated, aurora → cirrus" in said("receipts")
    matrix = said("vendors")
    for words in ("aurora", "borealis", "cirrus", "object-storage", "testbed"):
        assert words in matrix.lower(), matrix
    assert f"{book.name} is destroyed" in said("destroy", book.name)


def test_vendors_as_json(lab: Lab) -> None:
    """``agency vendors --json`` has the capability matrix, in which cirrus has no block storage."""
    vendors = {row["name"]: row for row in lab.json("vendors")["vendors"]}
    assert set(vendors) == {"aurora", "borealis", "cirrus"}
    assert all(row["reachable"] for row in vendors.values())
    assert vendors["aurora"]["capabilities"]["volumes"] is True
    assert vendors["cirrus"]["capabilities"]["volumes"] is False
    assert vendors["cirrus"]["capabilities"]["object-storage"] is True


def test_the_directory_is_listed(lab: Lab) -> None:
    """``agency directory`` lists who is registered, with what it sells, in words and as JSON; a site that is not
    trusted is not asked."""
    rows = {row["vendor"]: row for row in lab.json("directory")["registered"]}
    assert set(rows) == {"aurora", "borealis", "cirrus"}
    aurora = rows["aurora"]
    assert (aurora["agent"], aurora["site"]) == ("vendor-aurora@agency.local", "agency.local")
    assert (aurora["alive"], aurora["gone_since"], aurora["regions"]) == (True, None, ["eu-north"])
    assert 0 < aurora["price_from"] <= aurora["price_to"]
    assert "volumes" in aurora["capabilities"]
    shown = lab.cli("directory").stdout
    for words in ("vendor-aurora@agency.local: alive, lease until", "compute, block, object in eu-north (EU), 0.0"):
        assert words in shown, shown
    assert lab.refused("directory", "--site", "agency.b.example")["code"] == "not-trusted"


def test_offers_are_weighed_and_shown_as_they_are_wanted(lab: Lab, tmp_path: Path) -> None:
    """Other weights give another order, without touching what is kept; there is a page; a wrong weight is refused."""
    book = Guestbook(lab, tmp_path / "book", "weighed")
    book.descriptor.write_text(re.sub(r"(?s)<jurisdiction>.*?</jurisdiction>", "", book.descriptor.read_text()))
    usual = lab.json("submit", book.descriptor, "--weight", "egress=0.3")
    assert [row["vendor"] for row in usual["offers"] if row["chosen"]] == ["borealis"]
    assert lab.json("offers", book.name) == usual, "the descriptor keeps its weights"
    page = tmp_path / "offers.html"
    other = lab.json("offers", book.name, "--weight", "availability=9", "--html", page)
    (chosen,) = (row for row in other["offers"] if row["chosen"])
    assert chosen["vendor"] == "aurora"
    weights = {criterion["attribute"]: criterion["weight"] for criterion in chosen["criteria"]}
    assert weights["availability"] > 0.8
    assert weights["egress"] == pytest.approx(0.3 / 10.1, abs=1e-5)
    assert "aurora</strong> is recommended" in page.read_text()
    assert lab.json("offers", book.name) == usual
    shown = lab.cli("offers", book.name).stdout
    assert "would be first if price weighed" in shown
    assert lab.refused("offers", book.name, "--weight", "prise=1")["code"] == "bad-weight"
    assert lab.refused("submit", book.descriptor, "--weight", "price=much")["code"] == "bad-weight"


def test_negotiating(lab: Lab, tmp_path: Path) -> None:
    """Rounds bring prices down; the timeline says who offered what and why it ended, and is kept; what came of it is
    accepted as any offer; and a move is negotiated in the same way."""
    book = Guestbook(lab, tmp_path / "book", "haggled")
    first = {row["vendor"]: row for row in lab.json("submit", book.descriptor)["offers"]}
    found = lab.json("negotiate", book.name, "--strategy", "conceder", "--deadline", "20")
    assert lab.json("negotiate", book.name, "--show") == found
    assert lab.json("offers", book.name)["offers"] == found["offers"]
    acts = [turn["act"] for turn in found["timeline"] if turn["vendor"] == "aurora"]
    assert acts[:3] == ["offer", "counter-offer", "offer"]
    outcome = next(row for row in found["outcomes"] if row["vendor"] == "aurora")
    assert outcome["last_per_hour"] < outcome["first_per_hour"] == first["aurora"]["price_per_hour"]
    assert all(row["why"]["message"] for row in found["outcomes"])
    shown = lab.cli("negotiate", book.name, "--show").stdout
    assert "→ offers" in shown
    assert f"agency accept {chosen_of(found)}" in shown
    assert lab.refused("negotiate", book.name, "--strategy", "charm")["code"] == "unknown-strategy"

    dear = lab.json("negotiate", book.name, "--budget", "0.5")
    assert {row["excluded_because"][0]["code"] for row in dear["offers"]} >= {"over-budget"}
    assert {row["result"] for row in dear["outcomes"]} == {"none"}

    found = lab.json("negotiate", book.name)
    agreement = lab.json("accept", chosen_of(found))
    assert float(agreement["price"]["per_hour"]) < first["aurora"]["price_per_hour"]
    assert lab.json("deploy", book.name)["status"] == "running"
    plan = lab.json("relocate", book.name, "--plan", "--to", "cirrus", "--strategy", "fixed")
    assert plan["target"] == "cirrus"
    moved = lab.json("negotiate", book.name, "--show")
    assert moved["purpose"] == "relocation"
    asked = {term for turn in moved["timeline"] for term in turn["changes"]}
    assert {"price-per-hour", "move-downtime-seconds", "validity-seconds"} <= asked
    assert lab.refused("negotiate", book.name)["code"] == "already-deployed"


def test_refusals_are_clear(lab: Lab, tmp_path: Path) -> None:
    """What cannot be done is refused with status 1, a code, what is the matter, and what to do."""
    book = Guestbook(lab, tmp_path / "book", "refused")
    offers = lab.json("submit", book.descriptor)
    excluded = next(row for row in offers["offers"] if row["vendor"] == "borealis")
    reason = excluded["excluded_because"][0]
    assert reason["code"] == "other-jurisdiction"
    assert reason["message"] == "was not asked: it is under the law of US, where EU is required"
    assert lab.refused("accept", "offer-0000000000000000")["code"] == "not-found"
    assert lab.refused("deploy", book.name)["code"] == "no-agreement"
    assert lab.refused("status", "nobody")["code"] == "not-found"
    assert lab.refused("offers", "nobody")["code"] == "not-found"
    for action in ("stop", "start", "destroy"):
        assert lab.refused(action, book.name)["code"] == "not-deployed"
    assert lab.refused("relocate", book.name, "--to", "cirrus", "--plan")["code"] == "not-running"
    assert lab.refused("cancel", book.name)["code"] == "not-busy"
    book.deploy()
    assert lab.refused("submit", book.descriptor)["code"] == "already-deployed"
    nowhere = lab.refused("relocate", book.name, "--to", "nimbus", "--plan")
    assert nowhere["code"] == "unknown-vendor"
    assert "aurora" in nowhere["message"], "it says which there are"
    assert lab.refused("relocate", book.name, "--to", "borealis", "--plan")["code"] == "no-offer"
    assert lab.refused("relocate", book.name, "--component", "db", "--plan")["code"] == "no-such-component"
    second = run("up", "--state", lab.state)
    assert second.status == 1
    assert "already" in second.stderr
    assert "what to do" in second.stderr
    lab.client().follow(f"/applications/{book.name}/destroy", lambda _: None)


@pytest.mark.parametrize(
    "command",
    [("status",), ("vendors",), ("receipts",), ("deploy", "x"), ("relocate", "x", "--apply"), ("offers", "x")],
    ids=" ".join,
)
def test_no_agency(command: tuple[str, ...], tmp_path: Path) -> None:
    """Where no agency runs, every command ends with status 3 and says how to start one."""
    result = CliRunner().invoke(app, [*command, "--state", str(tmp_path)])
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "agency up" in result.stderr
    result = CliRunner().invoke(app, [*command, "--state", str(tmp_path), "--json"])
    assert result.exit_code == 3
    assert json.loads(result.stdout)["problem"]["code"] == "unreachable"


def test_a_dead_agency_is_no_agency(tmp_path: Path) -> None:
    """An ``api.json`` that a killed agency left behind is answered with status 3, not with a traceback."""
    (tmp_path / "api.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "token": "t", "pid": 1}))
    result = CliRunner().invoke(app, ["status", "--state", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (3, "")
    assert "does not answer" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("relocate", "x"),
        ("relocate", "x", "--plan", "--apply"),
        ("deploy",),
        ("dploy", "x"),
        ("status", "--jsn"),
        ("submit", "no-such-file.xml"),
        ("validate", "no-such-file.xml"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Wrong usage ends with status 2 and words on standard error, whether an agency runs or not."""
    state = () if arguments[0] == "validate" else ("--state", str(tmp_path))
    result = CliRunner().invoke(app, [*arguments, *state])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr


ATTACKS = {
    "external-entity": (
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        '<application xmlns="urn:cloud-agency:documents:1" version="1" name="a">&x;</application>'
    ),
    "billion-laughs": (
        '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a0 "lol">'
        + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
        + ']><application xmlns="urn:cloud-agency:documents:1" version="1" name="a">&a11;</application>'
    ),
    "ten-megabytes": (
        '<application xmlns="urn:cloud-agency:documents:1" version="1" name="a"><description>'
        + "x" * 10_000_000
        + "</description></application>"
    ),
    "wrong-element": (GUESTBOOK / "application.xml")
    .read_text()
    .replace("<tiers>", "<teirs>")
    .replace("</tiers>", "</teirs>"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("command", ["validate", "submit"])
def test_bad_documents(attack: str, command: str, tmp_path: Path) -> None:
    """A document that is an attack, or wrong, is refused with status 2, quickly, in words that name the file, and
    nothing of what it points to is shown."""
    file = tmp_path / f"{attack}.xml"
    file.write_text(ATTACKS[attack])
    state = () if command == "validate" else ("--state", tmp_path)
    began = time.monotonic()
    answer = run(command, file, *state, timeout=20)
    assert time.monotonic() - began < 10
    assert answer.status == 2
    assert answer.stdout == ""
    assert file.name in answer.stderr.replace("\n", "")
    assert "root:" not in answer.stderr
    assert len(answer.stderr) < 3000
    if attack == "wrong-element":
        line = next(i for i, text in enumerate(ATTACKS[attack].splitlines(), 1) if "<teirs>" in text)
        assert "teirs" in answer.stderr
        assert "tiers" in answer.stderr, "it says what was expected"
        assert f":{line}:" in answer.stderr.replace("\n", "")
    as_json = json.loads(CliRunner().invoke(app, ["validate", str(file), "--json"]).stdout)
    assert as_json["valid"] is False
    assert as_json["problems"][0]["message"]


def test_cancelling_a_relocation(lab: Lab, tmp_path: Path) -> None:
    """Cancelled while its volume is fetched, a relocation is undone at once: the command that cancels ends with 0, the
    one that relocates with 1, the receipt says so, and the application runs where it was."""
    book = Guestbook(lab, tmp_path / "book", "cancelled", size_mib=64)
    book.deploy()
    book.write(("Ada", "stays"))
    before, content, last = lab.application(book.name), book.content(), lab.last_event(book.name)
    command = lab.begin("relocate", book.name, "--to", "cirrus", "--apply")
    lab.await_event(book.name, "task-started", "fetch-volume-data", after=last)
    other = lab.refused("destroy", book.name)
    assert other["code"] == "busy", "nothing else is done meanwhile"
    cancel = lab.cli("cancel", book.name)
    began = time.monotonic()
    stdout, stderr = command.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert (cancel.status, command.returncode) == (0, 1), (cancel, stdout, stderr)
    assert re.search("plan-.* undone", cancel.stdout)
    assert "cancelled" in stderr
    assert "goes on at aurora" in stderr.replace("\n", " ")
    (receipt,) = [r for r in lab.json("receipts")["receipts"] if r["application"] == book.name]
    assert receipt["outcome"] == "cancelled"
    after = lab.application(book.name)
    assert (after["status"], after["resources"], after["endpoints"]) == (
        "running",
        before["resources"],
        before["endpoints"],
    )
    assert book.content() == content
    assert not [r for r in lab.held()["cirrus"] if book.name in r[1].key]
    lab.tidy()
    assert lab.json("relocate", book.name, "--to", "cirrus", "--apply")["outcome"] == "relocated"
    lab.client().follow(f"/applications/{book.name}/destroy", lambda _: None)


def test_only_the_relocation_that_was_asked_for_is_joined(lab: Lab, tmp_path: Path) -> None:
    """A relocation under way is joined by who asks for the same; who asks for another, or asks while the application
    is deployed, is told that it is busy."""
    book = Guestbook(lab, tmp_path / "book", "joined", size_mib=64)
    offers = lab.json("submit", book.descriptor)["offers"]
    lab.json("accept", chosen_of({"offers": offers}))
    command = lab.begin("deploy", book.name)
    lab.await_event(book.name, "task-started", "launch-web", after=0)
    busy = lab.refused("relocate", book.name, "--apply")
    assert busy["code"] == "busy"
    assert "deployment-" in busy["message"]
    command.communicate(timeout=60)

    last = lab.last_event(book.name)
    command = lab.begin("relocate", book.name, "--to", "cirrus", "--apply", "--json")
    lab.await_event(book.name, "task-started", "fetch-volume-data", after=last)
    for other in (("--to", "borealis"), ("--component", "other")):
        busy = lab.refused("relocate", book.name, *other, "--apply")
        assert busy["code"] == "busy"
        assert "to move web to cirrus" in busy["message"]
    joined = lab.begin("relocate", book.name, "--to", "cirrus", "--component", "web", "--apply", "--json")
    receipts = [json.loads(each.communicate(timeout=60)[0]) for each in (command, joined)]
    assert receipts[0] == receipts[1]
    assert (receipts[0]["outcome"], receipts[0]["target"]) == ("relocated", "cirrus")
    lab.client().follow(f"/applications/{book.name}/destroy", lambda _: None)
