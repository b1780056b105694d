"""What all commands do on a terminal: answer in words or as JSON, and explain what goes wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import SecretStr
    from rich.console import Console

T = TypeVar("T")

FAILED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

State = Annotated[
    Path | None,
    typer.Option(
        "--state", help="The agency's state directory.", envvar="AGENCY_STATE", show_default="XDG state directory"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]


def state_in(given: Path | None) -> Path:
    if given is not None:
        return given
    from agency.places import default_state

    return default_state()


def new_console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def failed(problem: dict[str, Any], as_json: bool, status: int) -> typer.Exit:
    if as_json:
        print_json({"problem": problem})
    else:
        from agency import show

        show.problem(new_console(stderr=True), problem)
    return typer.Exit(status)


def show_answer(answer: Any, as_json: bool, how: Callable[[Console, Any], None]) -> None:
    if as_json:
        print_json(answer)
    else:
        how(new_console(), answer)


def locally(work: Coroutine[Any, Any, T], state: Path, as_json: bool) -> T:
    """Do work in this process; what goes wrong is logged in the state directory, if there is one, shown, and ends the
    command."""
    import asyncio

    with explained(as_json):
        log_to(state if state.exists() else None)
        return asyncio.run(work)


@contextmanager
def explained(as_json: bool) -> Iterator[None]:
    """What goes wrong inside is shown as a problem and ends the command with 1."""
    from agency.problems import problem_of

    log_to(None)  # structlog as it comes would print tracebacks to stdout, with the values of all variables
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, a user is shown words
        raise failed(problem_of(error).model_dump(mode="json"), as_json, FAILED) from None


def log_to(directory: Path | None) -> None:
    from agency import logs

    logs.configure(directory)


def ask_secret(what: str) -> SecretStr:
    """A secret from the terminal, unseen; or the next line of standard input."""
    from pydantic import SecretStr

    given = typer.prompt(what, hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise typer.BadParameter(f"an empty {what.lower()} keeps nobody out")
    return SecretStr(given)
