"""The command line. Commands import what they need when they run: ``agency --help`` must not wait for SPADE or lxml.

Exit status: 0 done, 1 refused or failed, 2 wrong usage or a bad document, 3 no agency answers, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agency.terminal import (
    FAILED,
    INTERRUPTED,
    UNREACHABLE,
    USAGE,
    AsJson,
    State,
    ask_secret,
    explained,
    failed,
    locally,
    log_to,
    new_console,
    print_json,
    show_answer,
    state_in,
)
from agency.transfer.cli import transfer_app

if TYPE_CHECKING:
    from agency.client import Client
    from agency.settings import Settings
    from descriptors.application import Application
    from vendor_modules.catalog import Catalog

app = typer.Typer(
    help="Cloud Agency: finds, negotiates and moves cloud services.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
vendor_app = typer.Typer(help="Add vendors, and check Vendor Modules.", no_args_is_help=True)
app.add_typer(vendor_app, name="vendor")
server_app = typer.Typer(help="Set up an XMPP server for the agents.", no_args_is_help=True)
app.add_typer(server_app, name="server")
trust_app = typer.Typer(help="Say which other sites' agents are believed.", no_args_is_help=True)
app.add_typer(trust_app, name="trust")
app.add_typer(transfer_app, name="transfer")
prices_app = typer.Typer()
app.add_typer(prices_app, name="prices")

Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weight",
        metavar="ATTRIBUTE=NUMBER",
        help="How much something counts, such as price=0.5; may be repeated. What is not named counts as usual.",
    ),
]
App = Annotated[str, typer.Argument(metavar="APP", help="The application's name.")]


def main() -> None:
    """Run the command line."""
    atexit.register(gc.freeze)  # a process that ends has no use for looking through all that it imported, three times
    app()


@contextmanager
def _client(state: Path | None, as_json: bool) -> Iterator[Client]:
    """A client of the running agency; what goes wrong is shown and ends the command."""
    from agency.client import Client, Refused, Unreachable

    try:
        with closing(Client(state_in(state))) as client:
            yield client
    except Refused as error:
        raise failed(error.problem, as_json, FAILED) from None
    except KeyboardInterrupt:
        remedy = "`agency status` shows how it goes; `agency cancel APP` calls it off, or undoes it"
        problem = {"code": "not-followed", "message": "what was begun goes on in the agency", "remedy": remedy}
        raise failed(problem, as_json, INTERRUPTED) from None
    except Unreachable as error:
        remedy = f"start it with `agency up --state {state_in(state)}`"
        problem = {"code": "unreachable", "message": str(error), "remedy": remedy}
        raise failed(problem, as_json, UNREACHABLE) from None


# --- running an agency ---


@app.command()
def up(
    state: State = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, envvar="AGENCY_PORT", help="Port of the API on 127.0.0.1; 0 takes a free one."),
    ] = None,
    testbed: Annotated[
        bool | None,
        typer.Option(
            "--testbed/--no-testbed", envvar="AGENCY_TESTBED", help="Bring up the agency's own three testbed clouds."
        ),
    ] = None,
) -> None:
    """Run the agency: agents, vendors, and the API that the other commands use. Ctrl-C stops it."""
    from agency.settings import Settings

    given: dict[str, Any] = {name: value for name, value in (("port", port), ("testbed", testbed)) if value is not None}
    with explained(as_json=False):
        _run_until_stopped(Settings(state=state_in(state), **given))


def _run_until_stopped(settings: Settings) -> None:
    import asyncio

    from agency import show
    from agency.api.server import serving
    from agency.running import running_agency, settle
    from agency.signals import stopped

    async def run() -> None:
        async with running_agency(settings) as agency, serving(agency) as url:
            console = new_console()
            console.print(f"The agency runs in {settings.state}, its API at {url}.", markup=False)
            for name, cloud in agency.clouds.items():
                console.print(f"  testbed cloud {name}: {cloud.url} (process {cloud.pid})")
            for vendor in agency.unusable:
                show.unusable(new_console(stderr=True), vendor)
            settle()
            console.print("Ctrl-C stops it; its state stays.")
            await stopped()
            console.print("Stopping.")

    asyncio.run(run())


@app.command()
def demo(
    # not from AGENCY_STATE: the story is played in a place of its own
    state: Annotated[
        Path | None, typer.Option("--state", help="Where; by default a place that is removed again.")
    ] = None,
    link: Annotated[
        str, typer.Option(metavar="LINK", help="How the agents reach each other: in-process, component or client.")
    ] = "in-process",
    server: Annotated[
        str | None,
        typer.Option(metavar="SERVER", help="ejabberd or prosody, for component and client: starts one of its own."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play the main job: broker, deploy and relocate the guestbook, and prove that nothing was lost."""
    import asyncio
    from typing import cast, get_args

    from agency.demo import play
    from agency.servers.setting_up import Kind
    from agency.settings import LinkKind

    if link not in get_args(LinkKind):
        raise typer.BadParameter(f"there are {', '.join(get_args(LinkKind))}", param_hint="--link")
    if (link == "in-process") != (server is None) or server not in (None, *Kind):
        raise typer.BadParameter(f"{' or '.join(Kind)}, with --link component or client", param_hint="--server")
    log_to(None)
    kind = None if server is None else Kind(server)
    raise typer.Exit(asyncio.run(play(state, keep=keep, as_json=as_json, link=cast(LinkKind, link), server=kind)))


# --- applications ---


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An application descriptor: XML, YAML or JSON.")],
    weight: Weights = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Submit an application descriptor with its files; shows the offers."""
    from agency import show, weights
    from descriptors.documents import Form, dump

    application, files = _with_files(file, as_json)
    with explained(as_json):
        application = weights.weighed(application, weights.parse(weight or ()))
    with _client(state, as_json) as client:
        for digest, content in files.items():
            client.put(f"/blobs/{digest}", content)
        answer = client.post("/applications", content=dump(application, Form.JSON))
    show_answer(answer, as_json, show.offers)


def _with_files(file: Path, as_json: bool) -> tuple[Application, dict[str, bytes]]:
    """The descriptor with its files' digests filled in, and the files' content by digest."""
    from agency.submission import MissingFile, gather
    from descriptors.application import Application
    from descriptors.documents import DocumentError, load

    try:
        return gather(load(file, expect=Application), file.parent)
    except DocumentError as error:
        raise failed(_bad_document(error), as_json, USAGE) from None
    except MissingFile as error:
        problem = {"code": "file-missing", "message": str(error), "remedy": "put the file there, or correct its source"}
        raise failed(problem, as_json, USAGE) from None


def _bad_document(error: Exception) -> dict[str, Any]:
    return {"code": "bad-document", "message": str(error), "remedy": "correct the document and try again"}


@app.command()
def offers(
    application: App,
    weight: Weights = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write them as a page to send to somebody.")
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show the offers for an application: their scores, what is left out and why, and what would change the result."""
    from agency import show

    with _client(state, as_json) as client:
        answer = client.get(f"/applications/{application}/offers", weight=weight or [])
        page = client.text(f"/applications/{application}/offers.html", weight=weight or []) if html else ""
    if html:
        with explained(as_json):
            html.write_text(page, encoding="utf-8")
    show_answer(answer, as_json, show.offers)


Strategy = Annotated[
    str | None, typer.Option(metavar="NAME", help="boulware, if none is named; conceder, tit-for-tat, fixed.")
]
Budget = Annotated[float | None, typer.Option(min=0, help="Most that a month may cost, in the application's currency.")]
Rounds = Annotated[int | None, typer.Option(min=1, max=100, help="Most counter-offers to a vendor.")]
Deadline = Annotated[int | None, typer.Option(metavar="SECONDS", min=1, max=86400, help="How long it may take in all.")]
Commit = Annotated[
    int | None, typer.Option(metavar="DAYS", min=1, max=3660, help="The minimum term that you would agree to.")
]


@app.command()
def negotiate(
    application: App,
    strategy: Strategy = None,
    budget: Budget = None,
    rounds: Rounds = None,
    deadline: Deadline = None,
    commit: Commit = None,
    only: Annotated[bool, typer.Option("--show", help="Show the latest negotiation; begin none.")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Negotiate with the vendors about a submitted application; shows who offered what, when, and why it ended."""
    limits = {"strategy": strategy, "budget": budget, "rounds": rounds, "seconds": deadline, "commit_days": commit}
    _negotiate(application, None if only else "negotiate", limits, state, as_json)


def _negotiate(application: str, what: str | None, limits: dict[str, Any], state: Path | None, as_json: bool) -> None:
    """Begin a negotiation, if one is to begin, and show the latest."""
    from agency import show

    with _client(state, as_json) as client:
        if what:
            with show.Following(new_console(stderr=True)) as following:
                on_event = following.event if not as_json else lambda _: None
                client.follow(f"/applications/{application}/{what}", on_event, **limits)
        answer = client.get(f"/applications/{application}/negotiation")
    show_answer(answer, as_json, show.negotiation)


@app.command()
def accept(
    offer: Annotated[str, typer.Argument(metavar="OFFER", help="The offer's id.")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Accept an offer: it becomes an agreement."""
    from agency import show

    with _client(state, as_json) as client:
        answer = client.post(f"/offers/{offer}/accept")
    show_answer(answer, as_json, show.accepted)


def _act(application: str, action: str, state: Path | None, as_json: bool) -> None:
    from agency import show

    with _client(state, as_json) as client, show.Following(new_console(stderr=True)) as following:
        answer = client.follow(
            f"/applications/{application}/{action}", following.event if not as_json else lambda _: None
        )
    show_answer(
        answer,
        as_json,
        lambda console, d: console.print(f"{d['application']} is {d['status']}", *_urls(d), sep="\n  ", markup=False),
    )


def _urls(deployment: dict[str, Any]) -> list[str]:
    return [f"{endpoint['component']}: {endpoint['url']}" for endpoint in deployment["endpoints"]]


@app.command()
def deploy(application: App, state: State = None, as_json: AsJson = False) -> None:
    """Create everything under the accepted offer, or nothing."""
    _act(application, "deploy", state, as_json)


@app.command()
def start(application: App, state: State = None, as_json: AsJson = False) -> None:
    """Start a stopped application."""
    _act(application, "start", state, as_json)


@app.command()
def stop(application: App, state: State = None, as_json: AsJson = False) -> None:
    """Stop an application; its data and its addresses stay."""
    _act(application, "stop", state, as_json)


@app.command()
def destroy(application: App, state: State = None, as_json: AsJson = False) -> None:
    """Remove everything that an application has, with its data, and end its agreements."""
    _act(application, "destroy", state, as_json)


@app.command()
def cancel(application: App, state: State = None, as_json: AsJson = False) -> None:
    """Call off what is under way: a call for offers, a negotiation; or a deployment or relocation, which is undone."""
    with _client(state, as_json) as client:
        answer = client.post(f"/applications/{application}/cancel")
    show_answer(
        answer,
        as_json,
        lambda console, a: console.print(f"{application}: {a['cancelled']} is called off, or undone", markup=False),
    )


@app.command()
def status(
    application: Annotated[str | None, typer.Argument(metavar="[APP]", help="One application; none: all.")] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show where applications stand, what is to be cleaned up, and what leaked."""
    from agency import show

    with _client(state, as_json) as client:
        answer = client.get(f"/applications/{application}" if application else "/status")
    show_answer(answer, as_json, show.application if application else show.status)


@app.command()
def renegotiate(
    application: App,
    vendor: Annotated[str | None, typer.Option(help="With whom, where there are several agreements.")] = None,
    strategy: Strategy = None,
    budget: Budget = None,
    rounds: Rounds = None,
    deadline: Deadline = None,
    commit: Commit = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Negotiate with the vendor of a running agreement about another one; `agency accept` puts it in its place."""
    limits = {"strategy": strategy, "budget": budget, "rounds": rounds, "seconds": deadline, "commit_days": commit}
    _negotiate(application, "renegotiate", {**limits, "vendor": vendor}, state, as_json)


# --- relocation ---


@app.command()
def relocate(
    application: App,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VENDOR", help="Where to; by default the best other vendor.")
    ] = None,
    component: Annotated[str | None, typer.Option(metavar="NAME", help="Move only this component.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Negotiate the terms before: see `agency negotiate`."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be done.")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Plan, and do it. Joins a relocation that is under way.")
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Move an application, or one component, to another vendor."""
    if plan + apply != 1:
        raise typer.BadParameter("say one of --plan and --apply")
    from agency import show

    with _client(state, as_json) as client:
        under_way = None if plan else _to_join(client, application, to, component)
        if not under_way:
            planned = _planned(client, application, to, component, strategy)
            under_way = planned["id"]
            if plan or not as_json:
                show_answer(planned, as_json, show.plan)
        if plan:
            return
        with show.Following(new_console(stderr=True)) as following:
            receipt = client.follow(f"/plans/{under_way}/apply", following.event if not as_json else lambda _: None)
    show_answer(receipt, as_json, show.receipt)


def _planned(client: Client, application: str, to: str | None, component: str | None, strategy: str | None) -> Any:
    """A plan; what it costs is negotiated before, if there is a strategy."""
    path = f"/applications/{application}/plan"
    if strategy is None:
        return client.post(path, vendor=to, component=component)
    negotiated = f"{path}/negotiate"
    return client.follow(negotiated, lambda _: None, vendor=to, component=component, strategy=strategy)


def _to_join(client: Client, application: str, to: str | None, component: str | None) -> str | None:
    """The plan under way that is what was asked for; None if nothing is. Refused where something else is under way."""
    from agency.client import Refused

    status = client.get(f"/applications/{application}")
    busy: str | None = status["busy"]
    if busy is None:
        return None
    doing = busy
    if busy.startswith("plan-"):
        plan = client.get(f"/documents/{busy}")
        if to in (None, plan["target"]) and _moves(client, plan, status, component):
            return busy
        doing = f"{busy}, to move {', '.join(plan['components'])} to {plan['target']},"
    message, remedy = f"{application} is busy: {doing} is under way", "wait until it has ended"
    raise Refused({"code": "busy", "message": message, "remedy": remedy})


def _moves(client: Client, plan: Any, status: Any, component: str | None) -> bool:
    """Whether the plan moves just that component; if none is named, all that are not at its target already."""
    if component is not None:
        return bool(plan["components"] == [component])
    machines = [r for r in status["resources"] if r["kind"] == "machine"]
    there = {machine["component"] for machine in machines if machine["vendor"] == plan["target"]}
    names = {each["name"] for each in client.get(f"/documents/{status['application']}")["components"]}
    return names - there <= set(plan["components"])


@app.command()
def receipts(state: State = None, as_json: AsJson = False) -> None:
    """Show the receipts of all relocations, the newest first."""
    from agency import show

    with _client(state, as_json) as client:
        answer = client.get("/receipts")
    show_answer(answer, as_json, show.receipts)


# --- documents and vendors ---


@app.command()
def document(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="An application's name, or the id of any document.")],
    form: Annotated[str, typer.Option(help="xml, yaml or json; of offers and agreements also wsag.")] = "yaml",
    state: State = None,
) -> None:
    """Print a document: an application, offer, agreement, deployment, relocation plan or receipt."""
    from descriptors.documents import Form

    forms = [*Form, "wsag"]
    if form not in forms:
        raise typer.BadParameter(f"a document has the forms {', '.join(forms)}", param_hint="--form")
    with _client(state, form == Form.JSON) as client:
        text = client.text(f"/documents/{identifier}", form=Form.JSON if form == "wsag" else form)
    with explained(as_json=False):
        sys.stdout.write(_as_wsag(text) if form == "wsag" else text)


def _as_wsag(text: str) -> str:
    """The document in WS-Agreement's form."""
    from descriptors.documents import load
    from descriptors.sla import Agreement, Offer
    from descriptors.standards.wsag import to_wsag

    document = load(text)
    if not isinstance(document, Offer | Agreement):
        raise typer.BadParameter(f"WS-Agreement has no {document.tag}", param_hint="--form")
    return to_wsag(document)


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any of our documents: XML, YAML or JSON.")],
    as_json: AsJson = False,
) -> None:
    """Check a document; says where and what is wrong."""
    from descriptors.documents import DocumentError, load

    try:
        document = load(file)
    except DocumentError as error:
        if as_json:
            problems = [
                {k: getattr(p, k) for k in ("file", "line", "column", "element", "message", "expected")}
                for p in error.problems
            ]
            print_json({"valid": False, "problems": problems})
            raise typer.Exit(USAGE) from None
        raise failed(_bad_document(error), False, USAGE) from None
    show_answer(
        {"valid": True, "document": document.tag},
        as_json,
        lambda console, d: console.print(f"{file}: a valid {d['document']}", markup=False),
    )


@app.command()
def vendors(
    modules: Annotated[
        bool, typer.Option("--modules", help="All Vendor Modules that are installed; no agency need run.")
    ] = False,
    templates: Annotated[
        bool, typer.Option("--templates", help="What each vendor sells and guarantees, and what it negotiates.")
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show the vendors and what each can do."""
    from agency import show

    if modules:
        from vendor_modules.documentation import rows

        with explained(as_json):
            answer = {"vendors": rows()}
        show_answer(answer, as_json, show.modules)
        return
    with _client(state, as_json) as client:
        answer = client.get("/templates" if templates else "/vendors")
    show_answer(answer, as_json, show.templates if templates else show.vendors)


@app.command()
def directory(
    site: Annotated[
        str | None, typer.Option(metavar="DOMAIN", help="Another site's; `agency trust list` has those that answer.")
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show which vendors' agents are registered, what they sell, and whether they are alive."""
    from agency import show

    with _client(state, as_json) as client:
        answer = client.get("/directory", site=site)
    show_answer(answer, as_json, show.directory)


Name = Annotated[str, typer.Argument(metavar="NAME", help="The vendor's name.")]
Config = typer.Option("--config", metavar="FILE", help="A YAML or JSON file: module, settings, credentials.")


@vendor_app.command("add")
def vendor_add(
    name: Name,
    config: Annotated[Path | None, Config] = None,
    module: Annotated[
        str | None, typer.Option(help="The Vendor Module, when there is no file: asks for the rest.")
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="JID", help="The agent of a trusted site that speaks for it: this is our account there."),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Add a vendor once it has answered; the agency knows it when it is next started. Secrets are kept encrypted."""
    from agency import vendors
    from vendor_modules.vendor_file import VendorFile

    if (config is None) == (module is None):
        raise typer.BadParameter("give one of --config FILE and --module MODULE")

    async def work() -> Any:
        file = VendorFile.read(config) if config else _asked(module or "")
        return await vendors.add(state_in(state), name, file, agent)

    catalogue = locally(work(), state_in(state), as_json)
    answer = {
        "name": name,
        "agent": agent,
        "region": catalogue.region,
        "sizes": [size.name for size in catalogue.sizes],
    }
    show_answer(
        answer,
        as_json,
        lambda console, a: console.print(f"{name} answers from {a['region']} and is added.", markup=False),
    )


def _asked(module: str) -> Any:
    """A vendor whose settings and credentials are asked for on the terminal, from the module's own models."""
    from vendor_modules import registry
    from vendor_modules.services.credentials import KINDS
    from vendor_modules.vendor_file import VendorFile

    kind = registry.load(module)
    settings = {name: typer.prompt(name) for name, field in kind.Settings.model_fields.items() if field.is_required()}
    which = kind.credential_kinds[0]
    if len(kind.credential_kinds) > 1:
        which = typer.prompt(f"credentials ({' or '.join(kind.credential_kinds)})", default=which)
    fields = KINDS[which].model_fields if which in KINDS else {}
    secret = {name: "SecretStr" in str(field.annotation) for name, field in fields.items() if name != "kind"}
    credentials = {name: typer.prompt(name, hide_input=hidden) for name, hidden in secret.items()}
    return VendorFile.model_validate(
        {"module": module, "settings": settings, "credentials": {"kind": which, **credentials}}
    )


@vendor_app.command("new")
def vendor_new(
    name: Name,
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Where its folder is made.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Begin a Vendor Module: writes one that runs, with its tests. `agency vendor check NAME` says what is missing."""
    from agency import vendors

    with explained(as_json):
        files = [str(file) for file in vendors.begin(name, into)]
    show_answer(
        {"name": name, "files": files},
        as_json,
        lambda console, a: console.print("\n".join(["Written:", *a["files"], f"Next: agency vendor check {name}"])),
    )


@vendor_app.command("remove")
def vendor_remove(name: Name, state: State = None, as_json: AsJson = False) -> None:
    """Forget a vendor and its credentials; refused while something of ours is there."""
    from agency import vendors

    locally(vendors.remove(state_in(state), name), state_in(state), as_json)
    show_answer({"name": name}, as_json, lambda console, a: console.print(f"{name} is removed.", markup=False))


@vendor_app.command("check")
def vendor_check(
    name: Name, config: Annotated[Path | None, Config] = None, state: State = None, as_json: AsJson = False
) -> None:
    """Run the conformance suite on a vendor: creates, uses and removes things there. `testbed` brings its own cloud.

    What `agency vendor new` wrote here is found by its name.
    """
    from agency import show, vendors
    from vendor_modules import conformance
    from vendor_modules.vendor_file import VendorFile

    console = new_console(stderr=as_json)

    async def work() -> Any:
        file = VendorFile.read(config) if config else None
        async with vendors.subject(state_in(state), name, file) as subject:
            return await conformance.check_vendor(subject, lambda result: show.check(console, result, quiet=as_json))

    report = locally(work(), state_in(state), as_json)
    show_answer(report.to_json(), as_json, show.report)
    if not report.passed:
        raise typer.Exit(FAILED)


# --- XMPP servers ---

ServerState = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="State directory of the agency that logs in there: the secret is kept in it, encrypted.",
        envvar="AGENCY_STATE",
        show_default="XDG state directory",
    ),
]


@server_app.command("init")
def server_init(
    kind: Annotated[str, typer.Argument(metavar="SERVER", help="ejabberd or prosody.")],
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="The site's XMPP domain, such as a.example.")],
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the server is to live.")],
    listen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where clients and other servers come in; may be repeated.",
            show_default="127.0.0.1",
        ),
    ] = None,
    c2s_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for clients.")] = 5222,
    s2s_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for other servers.")] = 5269,
    component_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port for the agency, on the loopback interface.")
    ] = 5347,
    cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM certificate; by default one of the site's own authority is made."),
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's PEM key.")] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM authorities that the server believes.")] = None,
    user: Annotated[
        str | None, typer.Option(help="Whom the server runs as.", show_default="you; for root, the package's user")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write configuration, secret and certificate anew; accounts stay.")
    ] = False,
    state: ServerState = None,
    as_json: AsJson = False,
) -> None:
    """Set up ejabberd or Prosody for the agents of a domain: hardened, closed, with TLS. Prints how to go on."""
    from dataclasses import asdict

    from agency import show
    from agency.servers.setting_up import Kind, Plan, set_up

    if kind not in list(Kind):
        raise typer.BadParameter(f"there are templates for {' and '.join(Kind)}", param_hint="SERVER")
    if len({cert is None, key is None, ca is None}) > 1:
        raise typer.BadParameter("--cert, --key and --ca go together")
    plan = Plan(
        kind=Kind(kind),
        domain=domain,
        directory=directory,
        listen=tuple(listen or ["127.0.0.1"]),
        c2s_port=c2s_port,
        s2s_port=s2s_port,
        component_port=component_port,
        user=user,
        certificate=(cert, key, ca) if cert and key and ca else None,
    )
    done = locally(set_up(plan, state_in(state), force=force), state_in(state), as_json)
    show_answer(asdict(done), as_json, show.server)


@server_app.command("account")
def server_account(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="The agents' names: the part of an address before the @.")
    ],
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", help="The directory that `server init` wrote.")],
    ask: Annotated[bool, typer.Option("--ask", help="Ask for the password, instead of making one up.")] = False,
    state: ServerState = None,
    as_json: AsJson = False,
) -> None:
    """Make accounts for agents that come as clients, or give them new passwords. ejabberd must run for this."""
    from agency.servers import accounts

    password = ask_secret("Password") if ask else None

    async def work() -> list[str]:
        return [await accounts.make(name, directory, state_in(state), password) for name in names]

    jids = locally(work(), state_in(state), as_json)
    show_answer(
        {"jids": jids},
        as_json,
        lambda console, a: console.print(*(f"{jid} has an account." for jid in a["jids"]), sep="\n", markup=False),
    )


@server_app.command("secret")
def server_secret(
    jid: Annotated[str, typer.Argument(metavar="JID", help="The component's domain, or the account's address.")],
    state: ServerState = None,
    as_json: AsJson = False,
) -> None:
    """Keep what the agency logs in to a server with that was set up elsewhere; asks for it, or reads a line."""
    from agency.servers import accounts

    locally(accounts.keep(jid, ask_secret("Secret"), state_in(state)), state_in(state), as_json)
    show_answer(
        {"jid": jid}, as_json, lambda console, a: console.print(f"The secret of {a['jid']} is kept.", markup=False)
    )


# --- trust ---


Site = Annotated[str, typer.Argument(metavar="SITE", help="The other site's name: the domain of its agents.")]


@trust_app.command("show")
def trust_show(state: State = None, as_json: AsJson = False) -> None:
    """Print this site's name and public key, for other sites to trust it by."""
    from agency.trust import local

    own = locally(local.own(state_in(state)), state_in(state), as_json)
    answer = {"sites": [{"site": each.site, "key": each.key} for each in own]}
    show_answer(
        answer,
        as_json,
        lambda console, a: console.print(*(f"{each['site']} {each['key']}" for each in a["sites"]), sep="\n"),
    )


@trust_app.command("list")
def trust_list(state: State = None, as_json: AsJson = False) -> None:
    """Show the sites whose agents are believed, this one first."""
    from agency import show
    from agency.trust import local

    sites = locally(local.trusted(state_in(state)), state_in(state), as_json)
    answer = {
        "sites": [{"site": s.site, "key": s.key, "own": s.own, "added": s.added.isoformat()} for s in sites],
    }
    show_answer(answer, as_json, show.sites)


@trust_app.command("add")
def trust_add(
    site: Site,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its public key, as its `agency trust show` prints it.")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Believe another site's agents. Be sure that the key is its own: ask over another way. It may have several."""
    from agency.trust import local

    added = locally(local.trust(state_in(state), site, key), state_in(state), as_json)
    show_answer(
        {"site": added.site, "key": added.key},
        as_json,
        lambda console, a: console.print(f"{a['site']} is trusted.", markup=False),
    )


@trust_app.command("remove")
def trust_remove(site: Site, state: State = None, as_json: AsJson = False) -> None:
    """Believe another site's agents no longer, by none of its keys. An agency that runs knows within seconds."""
    from agency.trust import local

    locally(local.distrust(state_in(state), site), state_in(state), as_json)
    show_answer(
        {"site": site}, as_json, lambda console, a: console.print(f"{a['site']} is no longer trusted.", markup=False)
    )


@app.command()
def proof(
    application: App,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; by default standard output.")
    ] = None,
    state: State = None,
) -> None:
    """Print what an application's agreements and receipts rest on, signed, for anybody to verify. It is JSON."""
    from agency.trust import local
    from agency.trust.proof import write

    text = write(locally(local.prove(state_in(state), application), state_in(state), as_json=False))
    if output is None:
        sys.stdout.write(text)
        return
    with explained(as_json=False):
        output.write_text(text, encoding="utf-8")
    new_console().print(f"{output} proves what was agreed for {application}: `agency verify {output}`", markup=False)


@app.command()
def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A proof, as `agency proof` writes it, or a transfer's manifest.")
    ],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof, offline: every signature, by sites that are trusted here, and every link of the chain.

    Shows the chain; or the first link that does not hold, and ends with 1.
    """
    from agency import show
    from agency.trust import local

    links = locally(local.verify(state_in(state), file), state_in(state), as_json)
    show_answer({"valid": True, "links": [link.to_json() for link in links]}, as_json, show.proof)


# --- prices ---


@contextmanager
def _catalogue(state: Path | None, as_json: bool) -> Iterator[Catalog]:
    """The price catalogue; what goes wrong with it is shown and ends the command."""
    from agency.places import PRICES
    from vendor_modules.catalog import BadPriceFile, Catalog, CatalogueError

    try:
        yield Catalog(state_in(state) / PRICES)
    except CatalogueError as error:
        problem = {"code": error.code, "message": str(error), "remedy": error.remedy}
        raise failed(problem, as_json, USAGE if isinstance(error, BadPriceFile) else FAILED) from None


def _print_prices(answer: Any, as_json: bool, lines: Callable[[Any], Iterator[str]]) -> None:
    if as_json:
        print_json(answer)
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(answer))


@prices_app.callback(invoke_without_command=True)
def prices(
    context: typer.Context,
    min_cores: Annotated[int | None, typer.Option(min=1, help="At least so many cores.")] = None,
    min_memory: Annotated[float | None, typer.Option(min=0, help="At least so much memory, in GiB.")] = None,
    region: Annotated[
        str | None, typer.Option(help="A region, the beginning of some, or an area such as eu (all of Europe).")
    ] = None,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only this provider.")] = None,
    system: Annotated[str, typer.Option("--os", metavar="NAME", help="Operating system; any: all of them.")] = "linux",
    preemptible: Annotated[
        bool, typer.Option("--preemptible", help="Also machines that the provider may take back at any time.")
    ] = False,
    unknown: Annotated[bool, typer.Option("--unknown", help="Also sizes of unknown price; they come last.")] = False,
    sort: Annotated[str, typer.Option(help="price, cores or memory.")] = "price",
    limit: Annotated[int, typer.Option(min=0, help="How many to show; 0: all.")] = 20,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show what machines cost per hour at the providers, from the catalogue: no network, every price with its source
    and date."""
    if context.invoked_subcommand:
        return
    from agency import prices as shown
    from vendor_modules.catalog import Query
    from vendor_modules.catalog.catalogue import SORTS

    if sort not in SORTS:
        raise typer.BadParameter(f"prices are sorted by {', '.join(SORTS)}", param_hint="--sort")
    query = Query(
        min_cores=min_cores,
        min_memory_mib=None if min_memory is None else shown.mib(min_memory),
        region=region,
        provider=provider,
        os=None if system == "any" else system,
        preemptible=preemptible,
        unknown=unknown,
        sort=sort,
        limit=limit or None,
    )
    with _catalogue(state, as_json) as catalogue:
        answer = catalogue.query(query)
    _print_prices(shown.as_json(answer), as_json, shown.lines)


@prices_app.command("update")
def prices_update(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A price table (CSV), or JSON like libcloud's pricing.json."),
    ],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Take prices from a file. They replace all prices of the providers that are in it."""
    from agency import prices as shown

    with _catalogue(state, as_json) as catalogue:
        updated = catalogue.update(file)
    _print_prices(shown.updated_as_json(file.name, updated), as_json, shown.updated_lines)
