"""The REST API: FastAPI on 127.0.0.1, guarded by a token that only the agency's user can read.

Long work answers with one JSON object a line (NDJSON): ``{"event": …}`` while it goes on, at last ``{"result": …}`` or
``{"problem": …}``. Who hangs up does not stop the work: asking again joins it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import ValidationError

from agency import logs, weights
from agency.agents import addresses
from agency.api import views
from agency.api.offers_page import CONTENT_POLICY, offers_html
from agency.http_server import Server
from agency.messaging.request import ask
from agency.problems import AgencyError, problem_of, refuse
from agency.records import records
from agency.running import Agency
from agency.store.store import NotStored, Store
from broker.comparison import weighed_anew
from broker.scoring import weights_of
from descriptors import messages
from descriptors.application import Application, Weight
from descriptors.base import Document, utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison, Composition
from descriptors.deployment import Deployment
from descriptors.directory import Search, SearchResult
from descriptors.documents import DocumentError, Form, dump, load
from descriptors.negotiation import Mandate, Negotiation
from descriptors.relocation import RelocationPlan, RelocationReceipt
from descriptors.sla import Agreement, AgreementTemplate, Offer
from vendor_modules import registry
from vendor_modules.errors import VendorError

D = TypeVar("D", bound=Document)

API_FILE = "api.json"
"""In the state directory: where the API is, and the token for it."""
FORESEEN = (AgencyError, DocumentError, NotStored, ValidationError, VendorError, registry.UnknownModule)
"""Errors that are answered with their problem and are no fault of the agency's."""
KEPT: tuple[type[Document], ...] = (
    Application, Offer, Composition, Comparison, Negotiation, Agreement, Deployment, RelocationPlan, RelocationReceipt,
)  # fmt: skip
"""Documents that are shown to whoever has their id."""
MAX_BLOB = 64 * 1024 * 1024
"""Bytes of one uploaded file."""


def make_app(agency: Agency, token: str) -> FastAPI:
    """The API of one agency."""

    def authorized(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "the token in api.json is needed")

    app = FastAPI(title="Cloud Agency", version="1", dependencies=[Depends(authorized)], openapi_url=None)
    app.add_exception_handler(Exception, _answer_problem)
    for foreseen in FORESEEN:
        app.add_exception_handler(foreseen, _answer_problem)
    _add_queries(app, agency)
    _add_actions(app, agency)
    return app


async def _answer_problem(_: Request, error: Exception) -> Response:
    problem = problem_of(error)
    return JSONResponse({"problem": problem.model_dump(mode="json")}, status_code=409)


def _add_queries(app: FastAPI, agency: Agency) -> None:
    workshop = agency.workshop
    store = workshop.store

    @app.get("/vendors")
    async def vendors() -> dict[str, Any]:
        return await views.vendors(workshop, agency.unusable)

    @app.get("/directory")
    async def directory(site: str | None = None) -> dict[str, Any]:
        jid = agency.deployer.link.address(addresses.DIRECTORY)
        return views.directory(await ask(agency.deployer, jid, Search(site=site, gone=True), SearchResult))

    @app.get("/templates")
    async def templates() -> dict[str, Any]:
        return {"templates": await asyncio.gather(*(template(name) for name in workshop.modules))}

    async def template(vendor: str) -> dict[str, Any]:
        request = messages.Request(action="template", subject=vendor)
        jid = workshop.speaker(vendor)
        try:
            return views.template(await ask(agency.deployer, jid, request, AgreementTemplate))
        except AgencyError as error:
            return {"vendor": vendor, "problem": error.problem.message}

    @app.get("/status")
    async def status() -> dict[str, Any]:
        return await views.status(workshop)

    @app.get("/applications/{name}")
    async def application(name: str) -> dict[str, Any]:
        return await views.application_status(workshop, name)

    @app.get("/applications/{name}/offers")
    async def offers(name: str, weight: Annotated[tuple[str, ...], Query()] = ()) -> dict[str, Any]:
        comparison, _ = await _latest_offers(store, name, weights.parse(weight))
        return views.comparison(comparison)

    @app.get("/applications/{name}/offers.html")
    async def offers_page(name: str, weight: Annotated[tuple[str, ...], Query()] = ()) -> Response:
        comparison, call = await _latest_offers(store, name, weights.parse(weight))
        page = offers_html(await store.get(Application, name), call, comparison, utc_now())
        return HTMLResponse(page, headers={"content-security-policy": CONTENT_POLICY})

    @app.get("/applications/{name}/negotiation")
    async def negotiation(name: str) -> dict[str, Any]:
        await store.get(Application, name)
        found = await store.all(Negotiation, application=name, newest_first=True)
        if not found:
            raise refuse("no-negotiation", f"nothing was negotiated for {name}", f"`agency negotiate {name}`")
        return views.negotiation(found[0], await store.find(Comparison, found[0].call))

    @app.get("/applications/{name}/events")
    async def events(name: str, after: int = 0) -> dict[str, Any]:
        found = await store.events(name, after_id=after)
        return {"events": [{"id": e.id, "at": e.at.isoformat(), "kind": e.kind, "text": e.text} for e in found]}

    @app.get("/receipts")
    async def receipts() -> dict[str, Any]:
        found = await store.all(RelocationReceipt, newest_first=True)
        return {"receipts": [receipt.model_dump(mode="json") for receipt in found]}

    @app.get("/documents/{identifier}")
    async def document(identifier: str, form: Form = Form.JSON) -> Response:
        for kind in KEPT:
            if found := await store.find(kind, identifier):
                return Response(dump(found, form), media_type=f"application/{form.value}")
        raise refuse("not-found", f"there is no document {identifier!r}", "see `agency status` and `agency receipts`")


async def _latest_offers(store: Store, name: str, given: tuple[Weight, ...]) -> tuple[Comparison, CallForProposals]:
    """The latest comparison of offers for an application, and the call that they answer; weighed anew when asked to."""
    await store.get(Application, name)
    comparisons = await store.all(Comparison, application=name, newest_first=True)
    if not comparisons:
        raise refuse("no-offers", f"no offers were asked for {name}", "`agency submit` its descriptor")
    call = await store.get(CallForProposals, comparisons[0].call)
    if not given:
        return comparisons[0], call
    anew = weighed_anew(comparisons[0], call, await records(store), weights_of(call.requirements, given))
    return anew, call


def _add_actions(app: FastAPI, agency: Agency) -> None:
    workshop = agency.workshop
    store = workshop.store

    mediator = agency.deployer.link.address(addresses.MEDIATOR)

    async def mediate(request: messages.Request, expect: type[D]) -> D:
        return await agency.deployer.request(request, expect)

    @app.put("/blobs/{digest}")
    async def blob(digest: str, request: Request) -> dict[str, Any]:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BLOB:
                raise refuse("file-too-large", f"a file is over {MAX_BLOB} bytes", "upload smaller files")
        stored = await asyncio.to_thread(workshop.blobs.put, bytes(body))
        if stored.digest != digest:
            raise refuse("content-differs", f"received {stored.digest}, announced {digest}", "upload it again")
        return {"digest": stored.digest, "size": stored.size}

    @app.post("/applications")
    async def submit(request: Request) -> dict[str, Any]:
        application = load(await request.body(), form=Form.JSON, expect=Application, name="application")
        return views.comparison(
            await ask(agency.deployer, agency.deployer.link.address(addresses.MEDIATOR), application, Comparison)
        )

    @app.post("/applications/{name}/negotiate")
    async def negotiate(name: str, request: Request) -> Response:
        mandate = _mandate(name, "deployment", request)
        return _followed(agency, name, lambda: ask(agency.deployer, mediator, mandate, Comparison))

    @app.post("/offers/{offer}/accept")
    async def accept(offer: str) -> dict[str, Any]:
        request = messages.Request(action="accept", subject=offer)
        if await store.find(Composition, offer):
            await mediate(request, Composition)
            return await views.accepted(workshop, await store.get(Composition, offer))
        return (await mediate(request, Agreement)).model_dump(mode="json")

    @app.post("/applications/{name}/plan/negotiate")
    async def negotiate_plan(name: str, request: Request) -> Response:
        mandate = _mandate(name, "relocation", request)
        return _followed(agency, name, lambda: ask(agency.deployer, mediator, mandate, RelocationPlan))

    @app.post("/applications/{name}/plan")
    async def plan(name: str, vendor: str | None = None, component: str | None = None) -> dict[str, Any]:
        request = messages.Request(action="plan-relocation", subject=name, vendor=vendor, component=component)
        return (await mediate(request, RelocationPlan)).model_dump(mode="json")

    @app.post("/applications/{name}/renegotiate")
    async def renegotiate(name: str, request: Request) -> Response:
        mandate = _mandate(name, "renegotiation", request)
        return _followed(agency, name, lambda: ask(agency.deployer, mediator, mandate, Comparison))

    @app.post("/applications/{name}/cancel")
    async def cancel(name: str) -> dict[str, Any]:
        cancelled = await mediate(messages.Request(action="cancel", subject=name), messages.Request)
        return {"application": name, "cancelled": cancelled.subject}

    @app.post("/applications/{name}/{action}")
    async def act(name: str, action: str) -> Response:
        if action not in ("deploy", "start", "stop", "destroy"):
            raise HTTPException(404)
        request = messages.Request.model_validate({"action": action, "subject": name})
        return _followed(agency, name, lambda: mediate(request, Deployment))

    @app.post("/plans/{plan_id}/apply")
    async def apply(plan_id: str) -> Response:
        found = await workshop.store.get(RelocationPlan, plan_id)
        request = messages.Request(action="relocate", subject=plan_id)
        return _followed(agency, found.application, lambda: mediate(request, RelocationReceipt))


def _mandate(name: str, purpose: str, request: Request) -> Mandate:
    """What the query says of how to negotiate."""
    return Mandate.model_validate({**request.query_params, "application": name, "purpose": purpose})


_under_way: set[asyncio.Future[Document]] = set()


def _ended(task: asyncio.Future[Document]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # seen: it is in the store, and nobody may be watching any more


def _followed(agency: Agency, application: str, job: Callable[[], Awaitable[Document]]) -> StreamingResponse:
    """Do a job and stream the application's events until it ends."""

    async def lines() -> AsyncIterator[str]:
        with agency.workshop.events.watch(application) as events:
            task = asyncio.ensure_future(job())
            _under_way.add(task)  # it goes on when the watcher hangs up
            task.add_done_callback(_ended)
            while not (task.done() and events.empty()):
                waiting = asyncio.ensure_future(events.get())
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    yield json.dumps({"event": waiting.result()}) + "\n"
                else:
                    waiting.cancel()
            if error := task.exception():
                yield json.dumps({"problem": problem_of(error).model_dump(mode="json")}) + "\n"
            else:
                yield json.dumps({"result": task.result().model_dump(mode="json")}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@asynccontextmanager
async def serving(agency: Agency) -> AsyncIterator[str]:
    """Serve the API while inside; gives its URL. Where it is, and its token, is written for the same user to read."""
    token = secrets.token_urlsafe(32)
    logs.hide(token)
    config = uvicorn.Config(
        make_app(agency, token),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,  # who follows long work is cut off: the work goes on at the next start
    )
    # the protocol is named because asyncio only then sets TCP_NODELAY: without it answers take 40 ms
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _listen(listener, agency.settings.port)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        file = agency.settings.state / API_FILE
        _write_private(file, json.dumps({"url": url, "token": token, "pid": os.getpid()}))
        try:
            yield url
        finally:
            file.unlink(missing_ok=True)
            server.should_exit = True
            await task


def _listen(listener: socket.socket, port: int) -> None:
    """Listen: who is told the URL can connect at once, also when the server's task has not had its turn yet."""
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        message = f"the API cannot have port {port} of 127.0.0.1: {error.strerror}"
        raise refuse("port-not-free", message, "name another with --port; 0 takes a free one") from None


def _write_private(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
        stream.write(text)
    new.replace(file)
