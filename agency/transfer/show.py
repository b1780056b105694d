"""How transfers look on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box, filesize
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    from agency.transfer.progress import Progress

Json = dict[str, Any]


class Transferring:
    """Shows a transfer while it goes on: bytes, how many of them went over the wire, rate and time left."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        words = TextColumn("{task.fields[words]}")
        self._bars = Bars(BarColumn(), DownloadColumn(binary_units=True), words, console=console, disable=quiet)
        self._bar = self._bars.add_task("", total=None, words="")

    def __enter__(self) -> Transferring:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, now: Progress) -> None:
        """Show how far our own transfer is."""
        self.status({"done": now.done, "total": now.total, "wire": now.wire, "rate": now.rate, "left": now.left})

    def status(self, status: Json) -> None:
        """Show where a proxy's transfer stands."""
        words = f"{_size(status['wire'])} sent"
        if status["rate"] is not None:
            words += f"  {_size(status['rate'])}/s"
        if status["left"] is not None:
            minutes, seconds = divmod(round(status["left"]), 60)
            words += f"  {minutes}:{seconds:02} left"
        self._bars.update(self._bar, completed=status["done"] or 0, total=status["total"], words=words)


def transferred(console: Console, answer: Json) -> None:
    """What came of our own transfer."""
    console.print(
        f"{answer['name']}: {_size(answer['size'])} in {answer['seconds']:.1f} s, {_size(answer['wire'])} on the wire",
        f"  {_size(answer['data'])} sent, {_size(answer['same'])} there already, "
        f"{_size(answer['copied'])} copied there, {_size(answer['zero'])} zeros",
        f"  {answer['root']}",
        sep="\n",
        markup=False,
    )


def transfers(console: Console, answer: Json) -> None:
    """What tokens were issued for, and what came of it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("id", "may", "file", "peer", "state", "size", "expires (UTC)"):
        table.add_column(column, overflow="fold", justify="right" if column == "size" else "left")
    for each in answer["transfers"]:
        size = "" if each["total"] is None else _size(each["total"])
        words = (each["id"], each["direction"], each["file"], each["peer"], each["state"], size)
        table.add_row(*map(escape, words), each["expires"][:16].replace("T", " "))
    console.print(table if answer["transfers"] else "No tokens were issued yet.")


def transfer(console: Console, answer: Json) -> None:
    """Where one transfer stands."""
    size = "" if answer["total"] is None else f", {_size(answer['done'] or 0)} of {_size(answer['total'])}"
    console.print(f"{answer['id']} is {answer['state']}{size}, {_size(answer['wire'])} over the wire", markup=False)
    for name in ("file", "peer", "root", "problem"):
        if answer.get(name):
            console.print(f"  {name}: {answer[name]}", markup=False)


def _size(count: float) -> str:
    return filesize.decimal(round(count))
