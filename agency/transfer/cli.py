"""`agency transfer`: run a transfer proxy, issue its tokens, and transfer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agency.terminal import (
    FAILED,
    INTERRUPTED,
    AsJson,
    State,
    ask_secret,
    explained,
    failed,
    log_to,
    new_console,
    show_answer,
    state_in,
)

if TYPE_CHECKING:
    from agency.transfer.meeting import Calling
    from agency.transfer.remote import Control
    from agency.transfer.work import Terms

transfer_app = typer.Typer(help="Transfer images and volumes between sites.", no_args_is_help=True)

Proxy = Annotated[str, typer.Argument(metavar="HOST:PORT", help="A transfer proxy: where its control channel is.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Where the token is.",
        show_default="$AGENCY_TRANSFER_TOKEN, else asked for",
    ),
]
Which = Annotated[
    str, typer.Argument(metavar="ID|HOST:PORT", help="A transfer of the proxy here; or a proxy whose token you have.")
]
Authorities = Annotated[
    Path | None,
    typer.Option(
        "--ca", metavar="FILE", help="PEM authorities to verify a proxy by.", show_default="ca.pem of the proxy here"
    ),
]
Format = Annotated[str, typer.Option("--format", help="What it is in here: raw, qcow2, vmdk, vdi, vhdx, vpc.")]
Streams = Annotated[int, typer.Option(min=1, max=8, help="Connections that carry the content.")]
Rate = Annotated[str | None, typer.Option(metavar="RATE", help="Most bytes a second, such as 50M.")]
Compress = Annotated[bool, typer.Option("--compress/--no-compress", help="Compress where it pays.")]
ManifestFile = Annotated[
    Path | None, typer.Option("--manifest", metavar="FILE", help="Where to write what the destination has signed.")
]


@transfer_app.command()
def init(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="Names and IP addresses that others reach it by; the first is its own name.",
            show_default="transfer.DOMAIN",
        ),
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the site's authority is (authority.pem, authority-key.pem).",
            show_default="one is made",
        ),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make a transfer proxy's key and certificate; again: new ones. Shows whom other sites have to believe."""
    with explained(as_json):
        from agency.settings import Settings
        from agency.transfer import identity

        settings = Settings(state=state_in(state))
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted = names or [f"transfer.{settings.domain}"]
        folder, peer = identity.initialize(settings.state, settings.domain, wanted, authority)
    answer = {
        "name": peer.name,
        "fingerprint": peer.fingerprint,
        "certificate": str(folder / "certificate.pem"),
        "ca": str(folder / "ca.pem"),
    }
    show_answer(
        answer,
        as_json,
        lambda console, a: console.print(
            f"The transfer proxy {a['name']} has a certificate, {a['fingerprint']}.",
            f"Others verify it by {a['ca']}; append their authorities there to believe them.",
            sep="\n",
            markup=False,
        ),
    )


@transfer_app.command()
def serve(
    root: Annotated[Path, typer.Option(metavar="DIR", help="The files that tokens can be issued for are below it.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the control channel is.")] = "127.0.0.1:7443",
    data: Annotated[int, typer.Option(min=0, max=65535, help="Port for content; 0 takes a free one.")] = 7444,
    transfers: Annotated[int, typer.Option(min=1, max=12, help="Most transfers at once.")] = 4,
    limit: Rate = None,
    compress: Compress = True,
    state: State = None,
) -> None:
    """Run a transfer proxy, until Ctrl-C. What was under way then can be gone on with."""
    import asyncio

    directory = state_in(state)
    with explained(as_json=False):
        from agency.signals import stopped
        from agency.transfer import identity, remote, sizes
        from agency.transfer.control import alone, serving
        from agency.transfer.proxy import Limits, Proxy
        from agency.transfer.site import site_key
        from agency.transfer.witness import Witness

        where = remote.split(listen, free=True)
        log_to(directory / identity.FOLDER if (directory / identity.FOLDER).exists() else None)
        if not root.is_dir():
            raise typer.BadParameter(f"{root} is no directory", param_hint="--root")
        name = identity.itself(directory).name
        limits = Limits(transfers, None if limit is None else sizes.parse(limit), compress)

        async def run() -> None:
            witness = Witness(name, await asyncio.to_thread(site_key, directory))
            proxy = Proxy(directory, root.resolve(), witness, limits)
            async with serving(proxy, directory, where, data) as (address, port):
                new_console().print(
                    f"The transfer proxy {name} is at {address}, content at port {port}. Ctrl-C stops it.", markup=False
                )
                sys.stdout.flush()
                await stopped()

        with alone(directory):
            asyncio.run(run())


@transfer_app.command()
def token(
    direction: Annotated[str, typer.Argument(metavar="read|write", help="What the other proxy may do.")],
    file: Annotated[str, typer.Argument(metavar="NAME", help="The file, below the proxy's root.")],
    peer: Annotated[
        str, typer.Option(metavar="NAME", help="The other proxy: its name, or its certificate's fingerprint.")
    ],
    format: Annotated[str, typer.Option("--format", help="What the file is in, or is to be in.")] = "raw",  # noqa: A002
    largest: Annotated[str | None, typer.Option("--max", metavar="SIZE", help="Most content, such as 20G.")] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A file below the root, in the same format: what a new file begins from."),
    ] = None,
    minutes: Annotated[int, typer.Option(min=1, max=43200, help="How long it can be used.")] = 60,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there, for you only to read.")
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Issue a token for one transfer with one other proxy. It is shown once."""
    if direction not in ("read", "write"):
        raise typer.BadParameter("say read or write", param_hint="DIRECTION")
    with explained(as_json):
        from agency.certificates import put
        from agency.transfer import remote, sizes

        most = None if largest is None else sizes.parse(largest)
        grant = {"direction": direction, "file": file, "peer": peer, "format": format, "most": most, "base": base}
        with remote.own(state_in(state)) as proxy:
            answer = proxy.ask("POST", "/tokens", {**grant, "seconds": minutes * 60})
        if output is not None:
            put(output, answer.pop("token").encode() + b"\n", 0o600)
    show_answer(answer, as_json, lambda console, a: console.print(a.get("token") or a["transfer"]["id"], markup=False))


@transfer_app.command()
def push(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A file or block device.")],
    destination: Proxy,
    token_file: TokenFile = None,
    format: Format = "raw",  # noqa: A002
    streams: Streams = 2,
    limit: Rate = None,
    compress: Compress = True,
    manifest: ManifestFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Send content to a proxy that has issued a token for it. Run again, it goes on where it broke off."""
    with explained(as_json), _transferring(as_json) as terms:
        from agency.transfer import work

        end = work.End("read", source.absolute().parent, source.name, format)
        terms = _with(terms, state, limit, compress)
        calling = _calling(state, destination, token_file, streams)
        result, statement = work.send_content(end, calling, terms)
    _show_result(source.name, result, statement, manifest, as_json)


@transfer_app.command()
def pull(
    source: Proxy,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A file or block device.")],
    token_file: TokenFile = None,
    to_format: Annotated[str, typer.Option("--to-format", help="What it is to be in here: raw, qcow2, …")] = "raw",
    base: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Content in the same format that a new file begins from."),
    ] = None,
    streams: Streams = 2,
    limit: Rate = None,
    manifest: ManifestFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Fetch content from a proxy that has issued a token for it. Run again, it goes on where it broke off."""
    with explained(as_json), _transferring(as_json) as terms:
        from agency.transfer import identity, work
        from agency.transfer.site import site_key
        from agency.transfer.witness import Witness
        from descriptors.base import new_id

        end = work.End("write", destination.absolute().parent, destination.name, to_format, base=base)
        terms = _with(terms, state, limit, compress=True)
        calling = _calling(state, source, token_file, streams)
        witness = Witness(identity.itself(state_in(state)).name, site_key(state_in(state)))
        result, statement = work.receive_content(new_id("transfer"), end, calling, witness, terms)
    _show_result(destination.name, result, statement, manifest, as_json)


@transfer_app.command()
def between(
    source: Proxy,
    destination: Proxy,
    token_file: TokenFile = None,
    to_token_file: Annotated[
        Path | None,
        typer.Option(
            "--to-token-file",
            metavar="FILE",
            help="Where the destination's token is.",
            show_default="$AGENCY_TRANSFER_TO_TOKEN, else asked for",
        ),
    ] = None,
    streams: Streams = 2,
    ca: Authorities = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Have one proxy send to another, with a token of each. Ctrl-C leaves it going on; `cancel` ends it."""
    with explained(as_json):
        from agency.transfer.tokens import text_of

        theirs = text_of(_token(to_token_file, "AGENCY_TRANSFER_TO_TOKEN", "Token of the destination"))
        proxy = _remote(source, token_file, ca, state)
        proxy.ask("POST", "/transfer", {"to": {"address": destination, "token": theirs}, "streams": streams})
        answer = _followed(proxy, "/transfer", as_json)
    _show_end(answer, as_json)


@transfer_app.command(name="list")
def list_(state: State = None, as_json: AsJson = False) -> None:
    """Show what the proxy here has issued tokens for, and what came of it."""
    with explained(as_json):
        from agency.transfer import remote, show

        with remote.own(state_in(state)) as proxy:
            answer = proxy.ask("GET", "/transfers")
    show_answer(answer, as_json, show.transfers)


@transfer_app.command()
def status(
    which: Which,
    follow: Annotated[bool, typer.Option("--follow", help="Until it has ended.")] = False,
    token_file: TokenFile = None,
    ca: Authorities = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show where a transfer stands."""
    with explained(as_json):
        from agency.transfer import show

        with _proxy(which, token_file, ca, state) as (proxy, path):
            answer = _followed(proxy, path, as_json) if follow else proxy.ask("GET", path)
    show_answer(answer, as_json, show.transfer)


@transfer_app.command()
def cancel(
    which: Which, token_file: TokenFile = None, ca: Authorities = None, state: State = None, as_json: AsJson = False
) -> None:
    """End a transfer, or see that it never begins: its token is worth nothing from then on."""
    with explained(as_json):
        from agency.transfer import show

        with _proxy(which, token_file, ca, state) as (proxy, path):
            answer = proxy.ask("DELETE", path)
    show_answer(answer, as_json, show.transfer)


@transfer_app.command()
def verify(
    which: Which, token_file: TokenFile = None, ca: Authorities = None, state: State = None, as_json: AsJson = False
) -> None:
    """Have a proxy read again what was transferred, and hash it. Ends with 1 if it is not the same any more."""
    with explained(as_json), _proxy(which, token_file, ca, state) as (proxy, path):
        answer = proxy.ask("POST", f"{path}/verification", patient=True)
    words = "is what was transferred" if answer["same"] else "is NOT what was transferred any more"
    show_answer(answer, as_json, lambda console, a: console.print(f"{a['root']} ({a['size']} bytes) {words}"))
    if not answer["same"]:
        raise typer.Exit(FAILED)


# --- proxies and tokens ---


@contextmanager
def _proxy(which: str, token_file: Path | None, ca: Path | None, state: Path | None) -> Iterator[tuple[Control, str]]:
    """The proxy that was meant, and the path of the transfer there."""
    if ":" in which:
        yield _remote(which, token_file, ca, state), "/transfer"
        return
    from agency.transfer import remote

    with remote.own(state_in(state)) as proxy:
        yield proxy, f"/transfers/{which}"


def _remote(address: str, token_file: Path | None, ca: Path | None, state: Path | None) -> Control:
    from agency.transfer import identity, remote

    context = identity.anonymous(ca or state_in(state) / identity.FOLDER / "ca.pem")
    return remote.at(address, context, _token(token_file))


def _calling(state: Path | None, address: str, token_file: Path | None, streams: int) -> Calling:
    """What connects to the proxy at that address."""
    from agency.transfer import identity, remote
    from agency.transfer.meeting import Calling

    context = identity.calling(state_in(state))
    return Calling(remote.data_address(address, context), _token(token_file), context, streams)


def _token(file: Path | None, variable: str = "AGENCY_TRANSFER_TOKEN", what: str = "Token") -> bytes:
    """A token from a file, the environment or the terminal; never from the command line, which others can read."""
    import os

    from agency.transfer.tokens import token_in

    if file is not None:
        return token_in(file.read_text("ascii", errors="replace").strip())
    return token_in(os.environ.get(variable) or ask_secret(what).get_secret_value())


# --- while it goes on, and afterwards ---


@contextmanager
def _transferring(as_json: bool) -> Iterator[Terms]:
    """Terms by which the transfer is shown, and ends in order at the first Ctrl-C or SIGTERM."""
    import signal
    import threading

    from agency.transfer import show
    from agency.transfer.work import Terms

    asked = threading.Event()

    def ask(number: int, _: object) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with show.Transferring(new_console(stderr=True), quiet=as_json) as shown:
            yield Terms(progress=shown.progress, cancelled=asked.is_set)
    except Exception:
        if not asked.is_set():
            raise
        remedy = "run it again, with the same token: it goes on where it broke off"
        problem = {"code": "cancelled", "message": "the transfer was broken off", "remedy": remedy}
        raise failed(problem, as_json, INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with(terms: Terms, state: Path | None, limit: str | None, compress: bool) -> Terms:
    from dataclasses import replace

    from agency.transfer import identity, sizes
    from agency.transfer.pace import Bandwidth

    bandwidth = None if limit is None else Bandwidth(sizes.parse(limit))
    return replace(terms, scratch=state_in(state) / identity.FOLDER, compress=compress, bandwidth=bandwidth)


def _show_result(name: str, result: Any, statement: str, manifest: Path | None, as_json: bool) -> None:
    with explained(as_json):
        from agency.transfer import show

        if manifest is not None:
            manifest.write_text(statement + "\n", encoding="ascii")
    numbers = ("size", "data", "copied", "same", "zero", "wire", "seconds")
    answer = {"name": name, **{each: getattr(result, each) for each in numbers}}
    answer |= {"root": f"blake3:{result.root.hex()}", "manifest": statement}
    show_answer(answer, as_json, show.transferred)


def _followed(proxy: Control, path: str, as_json: bool) -> dict[str, Any]:
    from agency.transfer import show

    try:
        with show.Transferring(new_console(stderr=True), quiet=as_json) as shown:
            return proxy.follow(path, shown.status)
    except KeyboardInterrupt:
        remedy = "`agency transfer status` shows how it goes, `agency transfer cancel` ends it"
        problem = {"code": "not-followed", "message": "the transfer goes on at the proxies", "remedy": remedy}
        raise failed(problem, as_json, INTERRUPTED) from None


def _show_end(answer: dict[str, Any], as_json: bool) -> None:
    from agency.transfer import show

    if answer["state"] != "complete":
        problem = {"code": f"transfer-{answer['state']}", "message": answer["problem"] or "the transfer was cancelled"}
        raise failed({**problem, "remedy": "start it again: it goes on where it broke off"}, as_json, FAILED)
    show_answer(answer, as_json, show.transfer)
