"""The command line of the observer.

Exit status: 0 done, 1 refused or failed, 2 wrong usage or a bad document, 3 the server is not reached, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from agency.observer.following import Seen
    from agency.observer.session import Account
    from descriptors.application import Application
    from descriptors.comparison import Comparison
    from descriptors.messages import Problem

T = TypeVar("T")

app = typer.Typer(
    help="Follow a Cloud Agency's events, and ask it for offers, over XMPP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

FAILED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130
PASSWORD = "AGENCY_OBSERVER_PASSWORD"  # noqa: S105 - the name of a variable

Jid = Annotated[
    str, typer.Option("--jid", metavar="JID", envvar="AGENCY_OBSERVER_JID", help="Your account: ann@a.example.")
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="HOST:PORT", envvar="AGENCY_OBSERVER_SERVER", help="Your XMPP server; by default DNS says."
    ),
]
Authorities = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        envvar="AGENCY_OBSERVER_CA",
        help="PEM file of the authorities to believe; or the system's.",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file", metavar="FILE", help=f"File with the password; by default {PASSWORD}, or you are asked."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else on standard output.")]


def main() -> None:
    """Run the command line."""
    logging.getLogger().addHandler(logging.NullHandler())  # what aioxmpp finds odd is told in our words, if it matters
    app()


@app.command()
def watch(
    jid: Jid,
    server: Server = None,
    ca: Authorities = None,
    password_file: PasswordFile = None,
    pubsub: Annotated[
        str | None, typer.Option("--pubsub", metavar="JID", help="The PubSub service; by default your site's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document a line.")] = False,
) -> None:
    """Print the agency's events as they come: negotiation, agreements, relocations, measurements. Ctrl-C ends it."""
    from agency.messaging.names import pubsub_of
    from agency.observer.following import follow
    from agency.observer.session import session

    account = _account(jid, server, ca, password_file, as_json)
    service = pubsub or pubsub_of(account.jid.domain)

    async def run() -> None:
        async with (
            session(account, present=True) as client,
            contextlib.aclosing(follow(client, service, _say)) as events,
        ):
            _say(f"following the events at {service}")
            async for event in events:
                _print(_as_json(event) if as_json else _line(event))

    if _until_stopped(run(), as_json) is None:
        raise typer.Exit(0)


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An application descriptor: XML, YAML or JSON.")],
    jid: Jid,
    server: Server = None,
    ca: Authorities = None,
    password_file: PasswordFile = None,
    mediator: Annotated[
        str | None, typer.Option("--mediator", metavar="JID", help="Whom to ask; by default your site's Mediator.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a descriptor to the agency's Mediator and print what the vendors offer. Files that it names must have been
    brought to the agency before, by `agency submit`."""
    from agency.messaging.names import agents_of
    from agency.observer.asking import ask_for_offers
    from agency.observer.session import session

    application = _descriptor(file, as_json)
    account = _account(jid, server, ca, password_file, as_json)
    to = mediator or f"mediator@{agents_of(account.jid.domain)}"

    async def run() -> Comparison:
        async with session(account) as client:
            return await ask_for_offers(client, to, application, _say)

    comparison = _until_stopped(run(), as_json)
    if comparison is None:
        raise typer.Exit(INTERRUPTED)
    if as_json:
        _print(_document(comparison))
    else:
        _show(comparison)


# --- what was given ---


def _account(jid: str, server: str | None, ca: Path | None, password_file: Path | None, as_json: bool) -> Account:
    import aioxmpp
    from pydantic import SecretStr

    from agency.observer.session import Account

    try:
        address = aioxmpp.JID.fromstr(jid)
    except ValueError as error:
        raise typer.BadParameter(f"{jid!r} is no JID: {error}") from None
    if address.localpart is None:
        raise typer.BadParameter(f"{jid!r} is no account's JID: give one such as ann@a.example")
    if address.resource is None:
        # the same for as long as this runs: the Mediator's answers find the way back when the connection was lost
        address = address.replace(resource=f"observer-{os.urandom(6).hex()}")
    return Account(address, SecretStr(_password(address, password_file)), _server(server), ca)


def _server(given: str | None) -> tuple[str, int] | None:
    if given is None:
        return None
    host, _, port = given.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"{given!r} is no server: give HOST:PORT, such as 127.0.0.1:5222")
    return host.strip("[]"), int(port)


def _password(jid: object, file: Path | None) -> str:
    if file is None:
        return os.environ.get(PASSWORD) or typer.prompt(f"Password of {jid}", hide_input=True, err=True)
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _descriptor(file: Path, as_json: bool) -> Application:
    from agency.submission import MissingFile, gather
    from descriptors.application import Application
    from descriptors.documents import DocumentError, load
    from descriptors.messages import Problem

    try:
        return gather(load(file, expect=Application), file.parent)[0]
    except (DocumentError, MissingFile) as error:
        remedy = "correct the document and try again"
        _fail(Problem(code="bad-document", message=str(error), remedy=remedy), as_json, USAGE)


# --- running ---


def _until_stopped(work: Coroutine[Any, Any, T], as_json: bool) -> T | None:
    """The result; None where somebody stopped us. What fails is shown, and ends the command."""
    from agency.observer.session import Failed

    async def run() -> T | None:
        task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return None

    try:
        return asyncio.run(run())
    except Failed as failed:
        _fail(failed.problem, as_json, UNREACHABLE if failed.problem.code == "server-unreachable" else FAILED)
    except BrokenPipeError:  # whom we told does not listen any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None


def _fail(problem: Problem, as_json: bool, status: int) -> NoReturn:
    if as_json:
        _print(json.dumps({"problem": problem.model_dump(mode="json", exclude_none=True)}, ensure_ascii=False))
    else:
        _say(f"{problem.code}: {problem.message}\n  what to do: {problem.remedy}")
    raise typer.Exit(status)


# --- how it looks ---


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


def _as_json(event: Seen) -> str:
    return json.dumps(vars(event), ensure_ascii=False)


def _line(event: Seen) -> str:
    when = event.moment[:19].replace("T", " ")
    line = f"{when}  {event.topic:12}  {event.application}  {event.kind}: {event.text}"
    return "".join(each if each.isprintable() else " " for each in line)


def _document(comparison: Comparison) -> str:
    from descriptors.documents import Form, dump

    return dump(comparison, Form.JSON)


def _show(comparison: Comparison) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    table = Table(title=f"Offers for {comparison.application}", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("", "vendor", "region", "per hour", "per month", "score"):
        table.add_column(column, justify="right" if column in ("per hour", "per month", "score") else "left")
    for row in comparison.rows:
        if row.proposal:
            price = row.proposal.price
            table.add_row(
                "[green]➜[/]" if row.chosen else "[red]✗[/]" if row.excluded_because else "",
                row.name,
                escape(f"{row.offer.region} {row.offer.jurisdiction}" if row.offer else ""),
                f"{price.per_hour:.4f} {price.currency}",
                f"{price.per_month:.2f}",
                "" if row.score is None else f"{row.score:.3f}",
            )
    console.print(table)
    for row in comparison.rows:
        if row.proposal and not row.excluded_because:
            console.print(f"  {'➜' if row.chosen else ' '} {row.name}: {row.proposal.id}", markup=False)
        for reason in row.excluded_because:
            console.print(f"  ✗ {row.name} is left out: {reason.message}", markup=False)
