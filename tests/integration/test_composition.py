"""An application shared out among vendors: it wins the comparison, is deployed, serves, moves and goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.labs.agency import LONG_AWAY, Lab, running_agency_process, wait_until

pytestmark = pytest.mark.integration

DESCRIPTOR = Path(__file__).parent / "data" / "pair" / "application.xml"
NOTES = ("one", "two — zwei")
EXPECTED = "The notes:\none\ntwo — zwei\n"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """An agency with its three clouds: of those in the EU only aurora has volumes, and cirrus is cheaper."""
    with running_agency_process(tmp_path / "state", AGENCY_CLOUD_RESTART_SECONDS=LONG_AWAY) as lab:
        yield lab


def composed(lab: Lab) -> dict[str, Any]:
    """Submit the application so that a composition is recommended; gives its row."""
    offers = lab.json("submit", DESCRIPTOR, "--weight", "guarantees=0.05")["offers"]
    (chosen,) = (row for row in offers if row["chosen"])
    assert chosen["vendor"] == "cirrus + aurora"
    return chosen


def places(lab: Lab) -> dict[str, str]:
    """Where each component's machine is."""
    machines = [r for r in lab.application("pair")["resources"] if r["kind"] == "machine"]
    return {r["component"]: r["vendor"] for r in machines}


def shown(lab: Lab) -> str:
    """What a visitor of the web component sees."""
    return httpx.get(lab.application("pair")["endpoints"]["web"], trust_env=False).raise_for_status().text


def test_a_composition_wins_serves_moves_and_goes(lab: Lab) -> None:
    """The web component goes where it is cheap and the api where there are volumes, each under an agreement of its own;
    the one reaches the other; either can move; and at the end nothing is left."""
    row = composed(lab)
    assert [(part["vendor"], part["components"]) for part in row["parts"]] == [("cirrus", ["web"]), ("aurora", ["api"])]
    whole = next(other for other in lab.json("offers", "pair")["offers"] if other["vendor"] == "aurora")
    assert row["price_per_month"] + row["traffic_per_month"] == pytest.approx(row["monthly_cost"])
    assert row["monthly_cost"] < whole["monthly_cost"]
    assert "web at cirrus" in lab.cli("offers", "pair").stdout
    problem = lab.refused("accept", row["parts"][0]["offer"])
    assert (problem["code"], "web" in problem["message"]) == ("part-only", True)

    accepted = lab.json("accept", row["offer"])
    assert accepted["provider"] == "cirrus + aurora"
    assert sorted((a["provider"], *a["components"]) for a in accepted["agreements"]) == [
        ("aurora", "api"), ("cirrus", "web")
    ]  # fmt: skip
    assert lab.json("accept", row["offer"]) == accepted, "accepting twice gives the same agreements"
    assert lab.refused("accept", whole["offer"])["code"] == "already-agreed"

    deployment = lab.json("deploy", "pair")
    assert places(lab) == {"web": "cirrus", "api": "aurora"}
    agreements = {a["provider"]: a["id"] for a in accepted["agreements"]}
    assert {(r["vendor"], r["agreement"]) for r in deployment["resources"]} == set(agreements.items())
    url = next(e["url"] for e in deployment["endpoints"] if e["component"] == "api")
    for note in NOTES:
        httpx.post(f"{url}/notes", content=note.encode(), trust_env=False).raise_for_status()
    assert shown(lab) == EXPECTED
    lab.assert_whole("pair")

    receipt = lab.json("relocate", "pair", "--component", "web", "--to", "aurora", "--apply")
    assert receipt["outcome"] == "relocated"
    assert places(lab) == {"web": "aurora", "api": "aurora"}
    assert shown(lab) == EXPECTED
    lab.tidy()
    receipt = lab.json("relocate", "pair", "--to", "cirrus", "--apply")
    assert receipt["outcome"] == "relocated"
    assert places(lab) == {"web": "cirrus", "api": "cirrus"}
    assert shown(lab) == EXPECTED
    lab.tidy()
    lab.assert_whole("pair")

    assert lab.json("destroy", "pair")["status"] == "destroyed"
    assert lab.application("pair")["agreements"] == []
    lab.tidy()
    assert not any(lab.held().values())


def test_a_vendor_that_dies_while_parts_are_deployed_leaves_nothing(lab: Lab) -> None:
    """When one vendor goes away in the middle, what was made at the other is removed, and both agreements end."""
    lab.json("accept", composed(lab)["offer"])
    command = lab.begin("deploy", "pair")
    lab.await_event("pair", "task-done", "launch-api", after=0)
    killed = lab.kill_cloud("cirrus")
    _, stderr = command.communicate(timeout=120)
    assert command.returncode == 1, stderr
    after = lab.application("pair")
    assert (after["status"], after["resources"], after["agreements"]) == ("failed", [], [])
    wait_until("nothing at aurora", lambda: not lab.held()["aurora"])
    lab.cloud_back("cirrus", killed)
    lab.tidy()
    wait_until("nothing at cirrus", lambda: not lab.held()["cirrus"])
