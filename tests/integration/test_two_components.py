"""An application of two components, of which one works only when it reaches the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.labs.agency import LONG_AWAY, Lab, running_agency_process, wait_until

pytestmark = pytest.mark.integration

DESCRIPTOR = Path(__file__).parent / "data" / "pair" / "application.xml"
NOTES = ("one", "two — zwei")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """An agency for this module, with the application and notes in it at aurora, where every test leaves it."""
    state = tmp_path_factory.mktemp("pair") / "state"
    with running_agency_process(state, AGENCY_CLOUD_RESTART_SECONDS=LONG_AWAY) as lab:
        offers = lab.json("submit", DESCRIPTOR)["offers"]
        lab.client().post(f"/offers/{next(o['offer'] for o in offers if o['vendor'] == 'aurora')}/accept")
        deployment = lab.client().follow("/applications/pair/deploy", lambda _: None)
        url = next(e["url"] for e in deployment["endpoints"] if e["component"] == "api")
        with httpx.Client(trust_env=False) as http:
            for note in NOTES:
                http.post(f"{url}/notes", content=note.encode()).raise_for_status()
        yield lab
        lab.client().follow("/applications/pair/destroy", lambda _: None)
        lab.assert_whole("pair")


def shown(lab: Lab) -> str:
    """What a visitor of the web component sees."""
    return httpx.get(lab.application("pair")["endpoints"]["web"], trust_env=False).raise_for_status().text


def places(lab: Lab) -> dict[str, str]:
    """Where each component's machine is."""
    machines = [r for r in lab.application("pair")["resources"] if r["kind"] == "machine"]
    return {r["component"]: r["vendor"] for r in machines}


EXPECTED = "The notes:\none\ntwo — zwei\n"


def test_all_components_move_together(pair: Lab) -> None:
    """Both components move with the data, the web component finds the api at its new place, and back."""
    assert shown(pair) == EXPECTED
    for target in ("cirrus", "aurora"):
        receipt = pair.json("relocate", "pair", "--to", target, "--apply")
        assert receipt["outcome"] == "relocated"
        assert receipt["content_before"] == receipt["content_after"]
        assert places(pair) == {"api": target, "web": target}
        assert shown(pair) == EXPECTED
        pair.tidy()
        pair.assert_whole("pair")


def test_a_component_that_nothing_names_moves_alone(pair: Lab) -> None:
    """The web component moves alone and goes on using the api where that is; then all can be brought together."""
    receipt = pair.json("relocate", "pair", "--to", "cirrus", "--component", "web", "--apply")
    assert receipt["outcome"] == "relocated"
    assert places(pair) == {"api": "aurora", "web": "cirrus"}
    assert shown(pair) == EXPECTED
    pair.tidy()
    pair.assert_whole("pair")
    assert pair.json("stop", "pair")["status"] == "stopped"
    assert pair.json("start", "pair")["status"] == "running"
    assert shown(pair) == EXPECTED
    plan = pair.json("relocate", "pair", "--to", "aurora", "--plan")
    assert (plan["components"], plan["source"]) == (["web"], "cirrus"), "what is at aurora already stays"
    # here the web component, at its place already, names the api, which moves: both are made anew
    assert pair.json("relocate", "pair", "--to", "cirrus", "--apply")["outcome"] == "relocated"
    assert places(pair) == {"api": "cirrus", "web": "cirrus"}
    assert shown(pair) == EXPECTED
    pair.tidy()
    pair.assert_whole("pair")
    assert pair.json("relocate", "pair", "--to", "aurora", "--apply")["outcome"] == "relocated"
    assert places(pair) == {"api": "aurora", "web": "aurora"}


def test_a_component_that_another_names_does_not_move_alone(pair: Lab) -> None:
    """Moving the api away from under the web component is refused, and the words say what to do instead."""
    problem = pair.refused("relocate", "pair", "--to", "cirrus", "--component", "api", "--apply")
    assert problem["code"] == "component-in-use"
    assert "'web'" in problem["message"]
    assert "'api'" in problem["message"]
    assert "--component" in problem["remedy"]
    assert places(pair) == {"api": "aurora", "web": "aurora"}
    assert shown(pair) == EXPECTED


def test_both_components_come_back_when_the_target_dies(pair: Lab) -> None:
    """When the target is killed while the components are on their way, both run at the source again."""
    before, last = pair.application("pair"), pair.last_event("pair")
    command = pair.begin("relocate", "pair", "--to", "cirrus", "--apply")
    pair.await_event("pair", "task-started", "launch-api", after=last)
    killed = pair.kill_cloud("cirrus")
    _, stderr = command.communicate(timeout=120)
    assert command.returncode == 1, stderr
    assert "rolled-back" in stderr
    after = pair.application("pair")
    assert (after["status"], after["resources"]) == ("running", before["resources"])
    assert shown(pair) == EXPECTED
    pair.cloud_back("cirrus", killed)
    pair.tidy()
    wait_until("nothing at cirrus", lambda: not pair.held()["cirrus"])
    pair.assert_whole("pair")
