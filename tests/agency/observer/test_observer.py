"""The observer at work: what `agency-observer` prints, against an agency on each of the two servers."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest

from agency import logs
from agency.messaging.names import TOPICS
from agency.submission import gather
from descriptors import documents
from descriptors.application import Application
from descriptors.sla import Agreement
from tests.agency.observer.conftest import SmallAgency
from tests.labs.observer import ROOT, SOON, Observer, Watching
from tests.labs.xmpp import XmppServer

GUESTBOOK = ROOT / "examples" / "guestbook" / "application.xml"
README = (ROOT / "README.md").read_text()
pytestmark = pytest.mark.integration


async def ready(watching: Watching, agency: SmallAgency) -> None:
    """Wait until the watch has joined every node: it then prints what is published on each."""
    kinds = {"submitted": "negotiation", "agreed": "agreements", "planned": "relocations"}
    for number in range(1000):
        for kind in kinds:
            await agency.workshop.events.happened("trial", kind, str(number))
        agency.workshop.events.tick("trial", {"kind": "progress", "task": "trial", "done": number, "total": number})
        if number % 10 == 9 and await asyncio.to_thread(watching.has_printed, TOPICS):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it does not join the nodes")


async def test_a_descriptor_is_submitted_and_its_story_followed(
    agency: SmallAgency, ann: Observer, descriptor: Path
) -> None:
    """Over plain XMPP: `submit` brings the vendors' offers, with who is left out and why; `watch` prints what happens
    from then on: the negotiation, the agreement, the deployment, and measurements."""
    with ann.watching("--json") as watching:
        await ready(watching, agency)
        submitted = await asyncio.to_thread(ann.run, "submit", descriptor, "--json")
        assert submitted.status == 0, submitted
        rows = {row["vendor"]: row for row in json.loads(submitted.stdout)["rows"]}
        assert rows["alpha"]["chosen"] is True
        assert rows["cirrus"]["excluded_because"][0]["code"] == "no-block-storage"
        event = await asyncio.to_thread(watching.event, "submitted", application="notes")
        assert event["topic"] == "negotiation"
        assert re.match(r"\d{4}-\d\d-\d\dT", event["moment"])
        event = await asyncio.to_thread(watching.event, "offers", application="notes")
        assert "2 of 3 vendors qualify" in event["text"]

        agreement = await agency.request("accept", rows["alpha"]["offer"]["id"], Agreement)
        event = await asyncio.to_thread(watching.event, "agreed")
        assert (event["topic"], event["text"]) == ("agreements", f"{agreement.id} with alpha")
        await agency.request("deploy", "notes")
        event = await asyncio.to_thread(watching.event, "task-done", text="publish-web")
        assert event["topic"] == "relocations"
        await agency.request("stop", "notes")
        await asyncio.to_thread(watching.event, "stopped", application="notes")
        watching.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(watching.process.wait, SOON) == 0


async def test_an_agency_of_clients_is_observed_as_well(
    agency_of_clients: tuple[SmallAgency, Observer], descriptor: Path
) -> None:
    """Where each agent has an account of its own, the Mediator publishes: `submit` brings offers, `watch` prints it."""
    agency, ann = agency_of_clients
    with ann.watching("--json") as watching:
        await ready(watching, agency)
        mediator = f"mediator@{agency.server.domain}"
        submitted = await asyncio.to_thread(ann.run, "submit", descriptor, "--json", "--mediator", mediator)
        assert submitted.status == 0, submitted
        event = await asyncio.to_thread(watching.event, "offers", application="notes")
        assert "2 of 3 vendors qualify" in event["text"]
    assert agency.nodes.unpublished == 0


async def test_for_people(agency: SmallAgency, ann: Observer, descriptor: Path) -> None:
    """Without --json, `submit` prints a table and reasons, and `watch` a line an event in which nothing can steer the
    terminal; what is secret in an event's text does not leave the agency."""
    submitted = await asyncio.to_thread(ann.run, "submit", descriptor)
    assert submitted.status == 0, submitted
    assert "Offers for notes" in submitted.stdout
    assert "cirrus is left out: has no block storage service" in submitted.stdout
    logs.hide("s3cr3t-p4ssw0rd")
    try:
        with ann.watching() as watching:
            for number in range(600):
                await agency.workshop.events.happened("notes", "planned", f"\x1b[2J{number} with s3cr3t-p4ssw0rd")
                if watching.has_printed(("planned",)):
                    break
                await asyncio.sleep(0.1)
            line = await asyncio.to_thread(watching.printed, lambda line: "planned" in line)
    finally:
        logs.forget_hidden()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  relocations   notes  planned:  \[2J\d+ with \*+", line), line


async def test_the_readme_s_commands(agency: SmallAgency, ann: Observer) -> None:
    """Whoever exports what the README does, each value their own, and copies its commands, succeeds with both."""
    host, port = agency.server.c2s
    names = re.findall(r"(\w+)=", next(line for line in README.splitlines() if "export AGENCY_OBSERVER" in line))
    ann.environment |= dict(zip(names, (ann.jid, f"{host}:{port}", str(agency.server.ca)), strict=True))
    ann.options = []
    _, files = gather(documents.load(GUESTBOOK, expect=Application), GUESTBOOK.parent)
    for content in files.values():
        agency.workshop.blobs.put(content)
    with ann.watching() as watching:  # agency-observer watch
        await asyncio.to_thread(watching.said, "following the events")
        # agency-observer submit examples/guestbook/application.xml
        submitted = await asyncio.to_thread(ann.run, "submit", GUESTBOOK)
        assert submitted.status == 0, submitted
        assert "Offers for guestbook" in submitted.stdout


async def test_strangers_neither_follow_nor_ask(
    agency: SmallAgency, command: Path, xmpp_server: XmppServer, descriptor: Path
) -> None:
    """Whoever has an account at the site and is not named as a deployer is refused both, in words that say what to do;
    nothing of the descriptor is kept."""
    stranger = await asyncio.to_thread(Observer, command, xmpp_server, "stranger")
    for arguments in (("watch",), ("submit", descriptor)):
        answer = await asyncio.to_thread(stranger.run, *arguments, "--json")
        assert answer.status == 1, answer
        assert json.loads(answer.stdout)["problem"]["code"] == "not-allowed"
    assert await agency.workshop.store.find(Application, "notes") is None


async def test_what_the_mediator_refuses_is_told(agency: SmallAgency, ann: Observer, descriptor: Path) -> None:
    """A descriptor whose files the agency does not have is refused with the Mediator's own problem and remedy."""
    (descriptor.parent / "notes.conf").write_bytes(b"never uploaded")
    answer = await asyncio.to_thread(ann.run, "submit", descriptor, "--json")
    assert answer.status == 1, answer
    problem = json.loads(answer.stdout)["problem"]
    assert problem["code"] == "file-missing"
    assert "agency submit" in problem["remedy"]


async def test_a_server_that_goes_away_and_comes_back(agency: SmallAgency, ann: Observer) -> None:
    """While the server is away events hold nothing up; when it is back, `watch` prints each of them once."""
    with ann.watching("--json") as watching:
        await ready(watching, agency)
        await asyncio.sleep(4)  # ejabberd writes down what was made (an account, a node) within some seconds
        await asyncio.to_thread(agency.server.kill)
        for number in range(5):
            await agency.workshop.events.happened("notes", "late", f"meanwhile {number}")
        await asyncio.to_thread(watching.said, "the connection is lost")
        await asyncio.to_thread(agency.server.start)
        found = [await asyncio.to_thread(watching.event, "late") for _ in range(5)]
        assert [each["text"] for each in found] == [f"meanwhile {number}" for number in range(5)]
        await agency.workshop.events.happened("notes", "late", "and on")
        assert (await asyncio.to_thread(watching.event, "late"))["text"] == "and on"
    assert agency.nodes.unpublished == 0


async def test_a_watch_that_comes_first_waits_for_the_agency(ann: Observer, xmpp_server: XmppServer) -> None:
    """Where there are no nodes yet, `watch` says that it waits, and ends when it is told to."""
    with ann.watching("--pubsub", f"nobody.{xmpp_server.domain}") as watching:
        await asyncio.to_thread(watching.said, "waiting for the agency")
        watching.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(watching.process.wait, SOON) == 0


# --- the account, the server, the way there ---


async def test_clear_errors(ann: Observer, command: Path, xmpp_server: XmppServer, descriptor: Path) -> None:
    """A wrong password, a server that is not there, one that nobody believes, one for another domain, a file of
    authorities that is none: each is told by its code, and with its status."""
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    cases = [
        ([], {"AGENCY_OBSERVER_PASSWORD": "guessed"}, "not-let-in", 1),
        (["--server", "127.0.0.1:1"], {}, "server-unreachable", 3),
        (["--ca", system if system.exists() else command], {}, "not-trusted" if system.exists() else "bad-value", 1),
        (["--ca", descriptor], {}, "bad-value", 1),
        (["--ca", descriptor.parent / "none.pem"], {}, "bad-value", 1),
    ]
    for options, environment, code, status in cases:
        ann.options, kept = [*ann.options, *map(str, options)], ann.options
        answer = await asyncio.to_thread(ann.run, "submit", descriptor, "--json", **environment)
        ann.options = kept
        problem = json.loads(answer.stdout)["problem"]
        assert (problem["code"], answer.status) == (code, status), answer
        assert problem["remedy"]
        assert "Traceback" not in answer.stderr


async def test_a_mediator_that_is_not_there(ann: Observer, xmpp_server: XmppServer, descriptor: Path) -> None:
    """An address at which nobody is comes back as that."""
    answer = await asyncio.to_thread(ann.run, "submit", descriptor, "--mediator", f"x@{xmpp_server.domain}", "--json")
    assert answer.status == 1
    assert json.loads(answer.stdout)["problem"]["code"] == "no-such-agent"


async def test_a_password_from_a_file(ann: Observer, descriptor: Path, xmpp_server: XmppServer) -> None:
    """The password may be in a file; what is not an account, a server or a descriptor is wrong usage."""
    file = descriptor.parent / "password"
    file.write_text(f"{ann.password}\n")
    del ann.environment["AGENCY_OBSERVER_PASSWORD"]
    to = ("--mediator", f"x@{xmpp_server.domain}")
    answer = await asyncio.to_thread(ann.run, "submit", descriptor, "--password-file", file, *to)
    assert "no-such-agent" in answer.stderr
    for wrong in (("--jid", "ann@"), ("--jid", "a.test"), ("--server", "nowhere"), ("--password-file", "/nowhere")):
        ann.options, kept = [*ann.options, *wrong], ann.options
        assert (await asyncio.to_thread(ann.run, "submit", descriptor, "--password-file", file, *wrong)).status == 2
        ann.options = kept
    assert (await asyncio.to_thread(ann.run, "submit", file, "--password-file", file)).status == 2
