"""The REST API: guarded by its token, its answers and its streams."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from blake3 import blake3

from agency.api.server import API_FILE, make_app, serving
from agency.messaging.links.in_process import InProcessLink
from agency.relocation.workshop import Workshop
from agency.running import Agency, _society
from agency.settings import Settings
from agency.store.models import EventRow
from descriptors.base import utc_now
from descriptors.deployment import Deployment
from descriptors.documents import Form, dump, load
from descriptors.relocation import RelocationReceipt
from tests.agency.toys import CONFIG, CONFIG_DIGEST, Cloud, notebook

pytestmark = pytest.mark.usefixtures("dbos")
TOKEN = "s3cret-token"
Json = dict[str, Any]


@pytest.fixture
async def agency(workshop: Workshop, tmp_path: Path) -> AsyncIterator[Agency]:
    """A small agency on toy clouds."""
    async with _society(workshop, InProcessLink(), call_seconds=5) as deployer:
        yield Agency(Settings(state=tmp_path), workshop, deployer, {})


def connect(agency: Agency, token: str | None = TOKEN) -> httpx.AsyncClient:
    """A client of the agency's API with that token."""
    transport = httpx.ASGITransport(make_app(agency, TOKEN), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    return httpx.AsyncClient(transport=transport, base_url="http://agency", headers=headers, timeout=20)


@pytest.fixture
async def api(agency: Agency) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may."""
    async with connect(agency) as client:
        yield client


async def follow(api: httpx.AsyncClient, path: str) -> tuple[list[Json], Json]:
    """Do long work; gives the events and the last line."""
    response = await api.post(path)
    assert response.headers["content-type"] == "application/x-ndjson"
    *events, last = [json.loads(line) for line in response.text.splitlines()]
    assert all(list(event) == ["event"] for event in events)
    return [event["event"] for event in events], last


async def submitted(api: httpx.AsyncClient, **requirements: Any) -> dict[str, Json]:
    """Upload the file, submit the notebook; gives the offers by vendor."""
    assert (await api.put(f"/blobs/{CONFIG_DIGEST}", content=CONFIG)).status_code == 200
    response = await api.post("/applications", content=dump(notebook(**requirements), Form.JSON))
    assert response.status_code == 200, response.text
    return {row["vendor"]: row for row in response.json()["offers"]}


async def deployed(api: httpx.AsyncClient) -> Json:
    """Submit, accept what is recommended, deploy."""
    (chosen,) = [row["offer"] for row in (await submitted(api)).values() if row["chosen"]]
    assert (await api.post(f"/offers/{chosen}/accept")).status_code == 200
    return (await follow(api, "/applications/notes/deploy"))[1]["result"]


def routes(agency: Agency) -> list[tuple[str, str]]:
    """Every route that there is, as method and path."""
    found = [(method, route.path) for route in make_app(agency, TOKEN).routes for method in route.methods]
    return [(method, re.sub(r"\{\w+\}", "x", path)) for method, path in found]


async def test_nothing_without_the_token(agency: Agency) -> None:
    """Every route answers 401 without a token, with a wrong one, and with one that only begins right."""
    for token in (None, "", "wrong", TOKEN[:-1], TOKEN + "x", "tökén"):
        async with connect(agency, None) as client:
            headers = {"Authorization": f"Bearer {token}".encode()} if token is not None else {}
            for method, path in routes(agency):
                response = await client.request(method, path, headers=headers)
                assert response.status_code == 401, f"{method} {path}"
                assert TOKEN not in response.text
    assert len(routes(agency)) >= 14
    assert await agency.workshop.store.events() == []


async def test_the_token_opens(api: httpx.AsyncClient) -> None:
    """With the token an empty agency shows itself."""
    assert (await api.get("/status")).json() == {"applications": [], "cleanups": [], "leaked": []}
    vendors = {row["name"]: row for row in (await api.get("/vendors")).json()["vendors"]}
    assert set(vendors) == {"alpha", "beta", "cirrus"}
    assert vendors["alpha"]["capabilities"]["volumes"]
    assert not vendors["cirrus"]["capabilities"]["volumes"]


async def test_a_vendor_out_of_reach_is_shown_so(api: httpx.AsyncClient, clouds: dict[str, Cloud]) -> None:
    """A vendor that cannot be asked does not spoil the list."""
    clouds["beta"].away = True
    rows = {row["name"]: row for row in (await api.get("/vendors")).json()["vendors"]}
    assert (rows["alpha"]["reachable"], rows["beta"]["reachable"]) == (True, False)
    assert "out of reach" in rows["beta"]["problem"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/applications/ghost", "not-found"),
        ("GET", "/applications/ghost/offers", "not-found"),
        ("GET", "/documents/ghost", "not-found"),
        ("POST", "/offers/ghost/accept", "not-found"),
        ("POST", "/applications/ghost/plan", "not-found"),
        ("POST", "/applications/ghost/cancel", "not-busy"),
        ("POST", "/plans/ghost/apply", "not-found"),
        ("POST", "/applications", "bad-document"),
        ("PUT", f"/blobs/{CONFIG_DIGEST}", "content-differs"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_its_problem(
    api: httpx.AsyncClient, method: str, path: str, code: str
) -> None:
    """A refusal is a document with code, message and remedy under ``problem``, and the status 409."""
    response = await api.request(method, path, content=b"something else" if method != "GET" else None)
    assert response.status_code == 409
    problem = response.json()["problem"]
    assert problem["code"] == code
    assert problem["message"]
    assert problem["remedy"]


async def test_renegotiating(api: httpx.AsyncClient, clouds: dict[str, Cloud]) -> None:
    """What runs is offered anew by its vendor, and the status tells of the agreement that took the other's place."""
    await deployed(api)
    clouds["alpha"].per_hour = Decimal("0.005")
    _, last = await follow(api, "/applications/notes/renegotiate")
    (row,) = last["result"]["rows"]
    new = (await api.post(f"/offers/{row['offer']['id']}/accept")).json()
    (agreement,) = (await api.get("/applications/notes")).json()["agreements"]
    assert (agreement["id"], agreement["state"], agreement["expires"]) == (new["id"], "observed", None)


async def test_templates(api: httpx.AsyncClient) -> None:
    """Each vendor tells what it sells, guarantees and negotiates."""
    found = {each["vendor"]: each for each in (await api.get("/templates")).json()["templates"]}
    assert found.keys() == {"alpha", "beta", "cirrus"}
    assert found["alpha"]["guarantees"] == ["99.9 % availability"]
    assert "block STORAGE" in found["alpha"]["services"]
    assert "block STORAGE" not in found["cirrus"]["services"]


async def test_names_that_are_none(api: httpx.AsyncClient) -> None:
    """A name that no document could carry is refused as a bad value, not as a fault of ours."""
    for path in ("/applications/%20%01/plan", "/offers/%C3%BC/accept", f"/applications/{'x' * 300}/cancel"):
        problem = (await api.post(path)).json()["problem"]
        assert problem["code"] == "bad-value", path


async def test_an_action_that_there_is_not(api: httpx.AsyncClient) -> None:
    """Actions that nobody knows are no routes."""
    assert (await api.post("/applications/notes/explode")).status_code == 404


async def test_a_file_must_be_what_was_announced(api: httpx.AsyncClient, agency: Agency) -> None:
    """What is uploaded is kept under its own digest; what was announced wrongly is refused."""
    announced = f"blake3:{blake3(b'announced').hexdigest()}"
    assert (await api.put(f"/blobs/{announced}", content=b"sent")).json()["problem"]["code"] == "content-differs"
    assert not agency.workshop.blobs.has(announced)
    answer = await api.put(f"/blobs/{announced}", content=b"announced")
    assert answer.json() == {"digest": announced, "size": 9}
    assert agency.workshop.blobs.read(announced) == b"announced"


async def test_a_file_that_is_too_large(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads have a limit."""
    monkeypatch.setattr("agency.api.server.MAX_BLOB", 10)
    answer = await api.put(f"/blobs/{CONFIG_DIGEST}", content=CONFIG)
    assert answer.json()["problem"]["code"] == "file-too-large"


async def test_the_whole_story(api: httpx.AsyncClient, clouds: dict[str, Cloud]) -> None:
    """Submitted, accepted, deployed, planned, relocated and destroyed over HTTP; streams end with the result."""
    offers = await submitted(api)
    assert (offers["alpha"]["chosen"], offers["beta"]["chosen"]) == (True, False)
    assert offers["cirrus"]["excluded_because"][0]["code"] == "no-block-storage"
    assert {r["vendor"] for r in (await api.get("/applications/notes/offers")).json()["offers"]} == set(offers)
    agreement = (await api.post(f"/offers/{offers['alpha']['offer']}/accept")).json()
    assert agreement["provider"] == "alpha"
    assert (await api.get("/applications/notes")).json()["status"] == "agreed"
    events, last = await follow(api, "/applications/notes/deploy")
    assert "launch-web" in {event["text"] for event in events if event["kind"] == "task-done"}
    assert last["result"]["status"] == "running"
    status = (await api.get("/status")).json()
    assert status["applications"][0]["vendors"] == ["alpha"]
    plan = (await api.post("/applications/notes/plan", params={"vendor": "cirrus"})).json()
    assert {item["action"] for item in plan["items"]} == {"move", "stay", "adapt"}
    events, last = await follow(api, f"/plans/{plan['id']}/apply")
    assert last["result"]["outcome"] == "relocated"
    assert [e for e in events if e["kind"] == "progress" and e["done"] == e["total"]]
    receipts = (await api.get("/receipts")).json()["receipts"]
    assert [receipt["id"] for receipt in receipts] == [last["result"]["id"]]
    document = await api.get(f"/documents/{last['result']['id']}", params={"form": "xml"})
    assert load(document.text, form=Form.XML, expect=RelocationReceipt).outcome == "relocated"
    assert (await follow(api, "/applications/notes/destroy"))[1]["result"]["status"] == "destroyed"
    assert (await api.get("/status")).json()["leaked"] == []
    assert not clouds["alpha"].held
    history = (await api.get("/applications/notes/events")).json()["events"]
    kinds = [event["kind"] for event in history]
    assert [kinds.count(kind) for kind in ("submitted", "agreed", "planned", "destroyed")] == [1, 2, 1, 1]
    later = (await api.get("/applications/notes/events", params={"after": history[-2]["id"]})).json()["events"]
    assert later == history[-1:]


async def test_a_long_history_ends_with_what_happened_last(api: httpx.AsyncClient, agency: Agency) -> None:
    """An application's status shows what happened to it last, however much has happened before."""
    await submitted(api)
    store = agency.workshop.store
    async with store.transaction() as session:  # one by one, they would take their time
        values = {"application": "notes", "text": "x", "data": {}}
        session.add_all(EventRow(at=utc_now(), kind="task-done", **values) for _ in range(1100))
    await store.record_event("stopped", "it was stopped", application="notes")
    kinds = [event["kind"] for event in (await api.get("/applications/notes")).json()["history"]]
    assert (kinds[0], kinds[-1]) == ("submitted", "stopped")
    assert "task-done" not in kinds


async def test_a_stream_ends_with_the_problem(api: httpx.AsyncClient, clouds: dict[str, Cloud]) -> None:
    """Work that fails ends its stream with the problem, in its last line."""
    (chosen,) = [row["offer"] for row in (await submitted(api)).values() if row["chosen"]]
    await api.post(f"/offers/{chosen}/accept")
    clouds["alpha"].away = True
    events, last = await follow(api, "/applications/notes/deploy")
    assert "task-failed" in {event["kind"] for event in events}
    assert last["problem"]["code"] == "vendor-unavailable"
    assert "was not deployed" in last["problem"]["message"]
    events, last = await follow(api, "/applications/notes/stop")
    assert last["problem"]["code"] == "not-deployed"


async def test_hanging_up_does_not_stop_the_work(agency: Agency, api: httpx.AsyncClient) -> None:
    """Who stops reading the stream does not stop the deployment; who asks again joins it and has its result."""
    (chosen,) = [row["offer"] for row in (await submitted(api)).values() if row["chosen"]]
    await api.post(f"/offers/{chosen}/accept")
    async with serving(agency) as url:
        token = json.loads((agency.settings.state / API_FILE).read_text())["token"]
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
            async with http.stream("POST", "/applications/notes/deploy") as response:
                first = await anext(response.aiter_lines())
            assert "event" in json.loads(first)
        for _ in range(3000):
            (deployment,) = await agency.workshop.store.all(Deployment)
            if deployment.status != "deploying":
                break
            await asyncio.sleep(0.02)
        assert deployment.status == "running"
        _, last = await follow(api, "/applications/notes/deploy")
    assert last["result"]["id"] == deployment.id


async def test_the_api_can_be_reached_as_soon_as_its_url_is_known(agency: Agency) -> None:
    """Whoever reads the URL connects, even before the event loop has turned once more."""
    async with serving(agency) as url:
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0), timeout=5):
            pass


async def test_where_the_api_is_is_written_for_its_user_alone(agency: Agency) -> None:
    """``api.json`` has URL and token, is readable by nobody else, and goes when the API ends."""
    file = agency.settings.state / API_FILE
    async with serving(agency) as url:
        known = json.loads(file.read_text())
        assert known["url"] == url
        assert url.startswith("http://127.0.0.1:")
        assert len(known["token"]) >= 32
        assert file.stat().st_mode & 0o777 == 0o600
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert (await http.get("/status")).status_code == 401
            answer = await http.get("/status", headers={"Authorization": f"Bearer {known['token']}"})
            assert answer.status_code == 200
    assert not file.exists()
