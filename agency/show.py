"""How things look on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from agency.running import Unusable
    from vendor_modules.conformance import Result

Json = dict[str, Any]
_MIB = 1024 * 1024


def offers(console: Console, answer: Json) -> None:
    """The offers table, the chosen one marked; how to accept each; and for every vendor left out, the reason."""
    table = Table(
        title=f"Offers for {answer['application']}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in ("", "vendor", "region", "per hour", "per month", "guarantees", "score", ""):
        table.add_column(column, justify="right" if column in ("per hour", "per month", "score") else "left")
    offered = [row for row in answer["offers"] if row["offer"]]
    for row in offered:
        table.add_row(
            "[green]➜[/]" if row["chosen"] else "[red]✗[/]" if row["excluded_because"] else "",
            f"[bold]{row['vendor']}[/]" if row["chosen"] else row["vendor"],
            escape(f"{row['region']} {row['jurisdiction']}"),
            f"{row['price_per_hour']:.4f} {row['currency']}",
            f"{row['price_per_month'] if row['monthly_cost'] is None else row['monthly_cost']:.2f}",
            "\n".join(row["guarantees"]),
            "" if row["score"] is None else f"{row['score']:.3f}",
            _standing(row),
        )
    console.print(table)
    for row in offered:
        if not row["excluded_because"]:
            console.print(
                f"  {'[green]➜[/]' if row['chosen'] else ' '} {row['vendor']}: `agency accept {row['offer']}`"
            )
    for row in offered:
        for part in row["parts"]:
            console.print(f"    {', '.join(part['components'])} at {part['vendor']}")
        if row["parts"]:
            traffic = f"{row['traffic_per_month']:.2f} {row['currency']}"
            console.print(f"    and {traffic} a month for the traffic between them, and to the world")
        for change in row["changes"]:
            console.print(f"    [dim]{row['vendor']} {escape(change)}[/]")
    for row in answer["offers"]:
        for reason in row["excluded_because"]:
            console.print(f"  [red]✗ {row['vendor']} is left out[/]: {escape(reason['message'])}")


def _standing(row: Json) -> str:
    """Whether another offer is at least as good in everything, and better in something."""
    if row["chosen"] or row["excluded_because"]:
        return ""
    return "[dim]alternative[/]" if row["efficient"] else "[dim]outdone[/]"


def negotiation(console: Console, answer: Json) -> None:
    """The timeline of a negotiation, how it ended with each vendor, and how to accept what came of it."""
    budget = "" if answer["budget"] is None else f", at most {float(answer['budget']):.2f} {answer['currency']} a month"
    console.print(
        f"[bold]{answer['application']}[/]: {answer['strategy']}{budget}; "
        f"{answer['rounds']} rounds in {answer['seconds']:.2f} s"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("at", "round", "vendor", "", "per hour", "terms"):
        table.add_column(column, justify="right" if column in ("at", "round", "per hour") else "left")
    marks = {"counter-offer": "[blue]← asks[/]", "offer": "[green]→ offers[/]", "refusal": "[red]✗ refuses[/]"}
    for turn in answer["timeline"]:
        price = "" if turn["price_per_hour"] is None else f"{turn['price_per_hour']:.4f}"
        words = [f"{term} {value:g}" for term, value in turn["changes"].items() if term != "price-per-hour"]
        if turn["reason"] and turn["act"] != "counter-offer":
            words.append(turn["reason"]["message"])
        table.add_row(
            f"{turn['seconds']:.2f} s", str(turn["round"]), turn["vendor"],
            marks.get(turn["act"], f"[yellow]{turn['act']}[/]"), price, escape(", ".join(words)),
        )  # fmt: skip
    console.print(table)
    for outcome in answer["outcomes"]:
        _outcome(console, outcome)
    if answer["late"]:
        console.print(f"  [yellow]{answer['late']} answers came too late, and were not used[/]")
    for row in answer["offers"]:
        if row["chosen"]:
            console.print(f"[green]➜[/] {row['vendor']}: `agency accept {row['offer']}`")


def _outcome(console: Console, outcome: Json) -> None:
    first, last = outcome["first_per_hour"], outcome["last_per_hour"]
    moved = f"{first:.4f} → {last:.4f} an hour" if first is not None and last != first else ""
    if not moved and first is not None:
        moved = f"{first:.4f} an hour"
    mark = "[green]✓[/]" if outcome["result"] == "offer" else "[red]✗[/]"
    console.print(f"  {mark} {outcome['vendor']}: {moved}{': ' if moved else ''}{escape(outcome['why']['message'])}")


def plan(console: Console, document: Json) -> None:
    """A relocation plan to approve."""
    console.print(
        f"[bold]Plan {document['id']}[/]: move {', '.join(document['components'])} of {document['application']} "
        f"from [bold]{document['source']}[/] to [bold]{document['target']}[/]"
    )
    marks = {"move": "[green]→ move[/]", "stay": "[blue]= stay[/]", "adapt": "[yellow]~ adapt[/]"}
    table = Table(show_header=False, box=None, padding=(0, 2))
    for item in document["items"]:
        size = _size(item["bytes"]) if item["bytes"] else ""
        table.add_row(f"  {marks[item['action']]}", item["kind"], item["name"], size, escape(item["what"]))
    console.print(table)
    before, after = document["price_before"], document["price_after"]
    console.print(
        f"  {_size(document['bytes'])} to move, about {document['seconds']:.0f} s in all, "
        f"about {document['downtime_seconds']:.0f} s of downtime"
    )
    console.print(
        f"  price: {float(before['per_hour']):.4f} → {float(after['per_hour']):.4f} {after['currency']} an hour "
        f"({float(before['per_month']):.2f} → {float(after['per_month']):.2f} a month); "
        f"{len(document['tasks'])} tasks; valid until {document['expires'][11:19]} UTC"
    )


def _size(count: float) -> str:
    return f"{count / _MIB:.1f} MiB" if count >= _MIB else f"{count / 1024:.1f} KiB"


def receipt(console: Console, document: Json) -> None:
    """A relocation receipt."""
    console.print(
        f"[bold]Receipt {document['id']}[/]: {document['application']} {document['outcome']}, "
        f"{document['source']} → {document['target']}"
    )
    console.print(
        f"  {_size(document['bytes_moved'])} moved in {document['seconds']:.1f} s, "
        f"downtime {document['downtime_seconds']:.1f} s"
    )
    for item in document["items"]:
        if item["digest"]:
            proven = f"verified: root {item['root'][:23]}…" if item["root"] else f"{item['digest'][:23]}…"
            console.print(f"  {item['kind']} {item['name']}: {_size(item['bytes'])}, {proven}")
    if document["content_before"]:
        same = document["content_before"] == document["content_after"]
        verdict = "[green]the same[/]" if same else "[yellow]not compared[/]"
        console.print(f"  content before and after: {document['content_before'][:23]}… {verdict}")
    for problem in document["problems"]:
        console.print(f"  [red]{escape(problem['message'])}[/]")


def receipts(console: Console, answer: Json) -> None:
    """All receipts, the newest first."""
    for document in answer["receipts"]:
        receipt(console, document)
    if not answer["receipts"]:
        console.print("No receipts: nothing has been relocated yet.")


def accepted(console: Console, answer: Json) -> None:
    """An agreement, or all of a composition, and what comes next."""
    old = answer.get("supersedes")
    then = f"in place of {old['id']}" if old else f"`agency deploy {answer['application']}`"
    console.print(f"{answer['id']} with {answer['provider']}: {then}", markup=False)


def templates(console: Console, answer: Json) -> None:
    """What vendors negotiate, and within which bounds."""
    for each in answer["templates"]:
        if "problem" in each:
            console.print(f"[bold]{escape(each['vendor'])}[/]: [red]{escape(each['problem'])}[/]")
            continue
        about = f"{', '.join(each['services'])} in {', '.join(each['regions'])}, priced in {each['currency']}"
        console.print(f"[bold]{escape(each['vendor'])}[/]: {escape(about)}")
        for words in each["guarantees"]:
            console.print(f"  guarantees {escape(words)}")
        for term, words in each["negotiable"].items():
            console.print(f"  negotiates {term}: {escape(words)}")


def directory(console: Console, answer: Json) -> None:
    """Who is registered, and whether they are there."""
    for each in answer["registered"]:
        alive = "[green]alive[/]" if each["alive"] else f"[red]gone[/] since {_moment(each['gone_since'])}"
        lease = f"lease until {_moment(each['lease_until'])}"
        console.print(f"[bold]{escape(each['vendor'])}[/] {escape(each['agent'])}: {alive}, {lease}")
        where = f"{', '.join(each['regions'])} ({', '.join(each['jurisdictions'])})" if each["regions"] else "not known"
        prices = f"{_price(each['price_from'])} to {_price(each['price_to'])} {each['currency'] or ''} an hour"
        console.print(f"  {escape(', '.join(each['services']) or 'not known')} in {escape(where)}, {prices}")
        console.print(f"  can do: {escape(', '.join(each['capabilities']))}")
    if not answer["registered"]:
        console.print("Nobody is registered.")


def _moment(text: str) -> str:
    return f"{text[:19].replace('T', ' ')} UTC"


def _price(number: float | None) -> str:
    return "?" if number is None else f"{number:.4f}"


def vendors(console: Console, answer: Json) -> None:
    """The vendors with the capability matrix, made from the modules' classes."""
    names = [vendor["name"] for vendor in answer["vendors"]]
    if not names:
        console.print("No vendors: add one with `agency vendor add`.")
        return
    table = Table(title="Vendors and what they can do", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(escape(name), justify="center")
    facts = {
        "module": [escape(v["module"]) for v in answer["vendors"]],
        "its agent at": [escape((v["agent"] or "").partition("@")[2]) for v in answer["vendors"]],
        "proven": [v["proof"] for v in answer["vendors"]],
        "answers": ["yes" if v["reachable"] else f"[red]{escape(v['problem'])}[/]" for v in answer["vendors"]],
        "region": [escape(f"{v['region']} ({v['jurisdiction']})") if v["reachable"] else "" for v in answer["vendors"]],
    }
    for fact, values in facts.items():
        table.add_row(f"[dim]{fact}[/]", *values)
    for capability in answer["vendors"][0]["capabilities"]:
        able = [vendor["capabilities"][capability] for vendor in answer["vendors"]]
        table.add_row(capability, *("[green]✓[/]" if can else "[dim]-[/]" for can in able))
    console.print(table)


def modules(console: Console, answer: Json) -> None:
    """The Vendor Modules that are installed, with what each can do and how far it has been proven."""
    table = Table(title="Vendor Modules: what each can do, and what proves it", title_justify="left")
    for column in ("module", "provider", "proof", "can do"):
        table.add_column(column)
    for row in answer["vendors"]:
        if not row["usable"]:
            table.add_row(escape(row["name"]), "", "", f"[red]{escape(row['problem'])}[/]")
            continue
        able = ", ".join(capability for capability, can in row["capabilities"].items() if can)
        table.add_row(escape(row["name"]), escape(row["title"]), row["proof"], able)
    console.print(table)


def unusable(console: Console, vendor: Unusable) -> None:
    """A vendor that a running agency leaves out."""
    console.print(f"[yellow]vendor {escape(vendor.name)} is left out[/]: {escape(vendor.problem)}")


def status(console: Console, answer: Json) -> None:
    """All applications, and what is amiss."""
    table = Table(title="Applications", title_justify="left")
    for column in ("application", "status", "vendors", "endpoints"):
        table.add_column(column)
    for row in answer["applications"]:
        state = row["status"] + (f" ({row['busy']})" if row["busy"] else "")
        table.add_row(row["application"], state, ", ".join(row["vendors"]), "\n".join(row["endpoints"].values()))
    console.print(table)
    for cleanup in answer["cleanups"]:
        console.print(f"[yellow]to be cleaned up[/]: {cleanup['kind']} {cleanup['key']} at {cleanup['vendor']}")
        console.print(f"  {escape(cleanup['reason'])} ({cleanup['attempts']} attempts so far)")
    for leak in answer["leaked"]:
        console.print(f"[red]leaked[/]: {leak['kind']} {leak['id']} at {leak['vendor']}")


def application(console: Console, answer: Json) -> None:
    """One application: where it is, and what it is made of."""
    console.print(f"[bold]{answer['application']}[/] is {answer['status']}")
    for component, url in answer["endpoints"].items():
        console.print(f"  {component}: {url}")
    for agreement in answer["agreements"]:
        price = f"{agreement['price_per_hour']:.4f} {agreement['currency']} an hour"
        until = f" until {agreement['expires'][:16].replace('T', ' ')} UTC" if agreement["expires"] else ""
        state = "" if agreement["state"] == "observed" else f" [red]{agreement['state']}[/]"
        console.print(f"  agreement {agreement['id']} with {agreement['provider']}, {price}{until}{state}")
    for vendor, state in answer["unsettled"].items():
        console.print(f"  agreement with {vendor} [yellow]{state}[/]")
    for event in answer["history"]:
        console.print(f"  [dim]{event['at'][:19].replace('T', ' ')}[/] {event['kind']}: {escape(event['text'])}")
    table = Table(box=None, padding=(0, 2))
    for column in ("kind", "name", "vendor", "id"):
        table.add_column(column)
    for resource in answer["resources"]:
        table.add_row(resource["kind"], resource["name"], resource["vendor"], resource["id"])
    if answer["resources"]:
        console.print(table)


def check(console: Console, result: Result, *, quiet: bool) -> None:
    """How one conformance check ended."""
    if quiet:
        return
    marks = {"passed": "[green]✓[/]", "failed": "[bold red]✗[/]", "skipped": "[dim]-[/]"}
    reason = f": {escape(result.reason)}" if result.reason else ""
    console.print(f"  {marks[result.outcome]} {result.name}[dim]{reason}[/]")


def report(console: Console, answer: Json) -> None:
    """How a vendor did in the conformance suite."""
    outcomes = [each["outcome"] for each in answer["checks"]]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in ("passed", "failed", "skipped"))
    console.print(f"{answer['vendor']}: {counts}")
    if answer["missing"]:
        console.print(f"[yellow]still to be written[/]: {escape(', '.join(answer['missing']))}")


def server(console: Console, answer: Json) -> None:
    """An XMPP server that is set up, and how to go on."""
    console.print(f"{answer['server']} for {answer['domain']} is set up in {answer['directory']}.", markup=False)
    console.print(f"  run it:       {answer['start']}   (or as a service: {answer['unit']})", markup=False)
    console.print(
        f"  then:         {' '.join(f'{k}={v}' for k, v in answer['environment'].items())} agency up", markup=False
    )
    console.print(
        f"  authorities:  {answer['ca']}: give it to clients and other sites, append theirs to it", markup=False
    )


def problem(console: Console, document: Json) -> None:
    """What went wrong and what to do."""
    console.print(f"[bold red]{document['code']}[/]: {escape(document['message'])}")
    console.print(f"  [bold]what to do[/]: {escape(document['remedy'])}")
    if document.get("receipt"):
        console.print(f"  receipt: {document['receipt']}")


class Following:
    """Shows long work while it goes on: a line a task, and for transfers a bar with bytes, rate and time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description:<24}"), BarColumn(), DownloadColumn(binary_units=True),
            TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Following:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def event(self, event: Json) -> None:
        """Show one event."""
        kind, text = event["kind"], escape(event.get("text", ""))
        if kind == "progress":
            name = event["task"]
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=event["total"])
            self._progress.update(self._bars[name], completed=event["done"])
        elif kind == "task-done":
            self._progress.console.print(f"  [green]✓[/] {text} [dim]{event.get('seconds', 0):.2f} s[/]")
            if text in self._bars:
                self._progress.remove_task(self._bars.pop(text))
        elif kind in ("task-failed", "undo-failed"):
            self._progress.console.print(f"  [red]✗[/] {text}")
        elif kind == "undone":
            self._progress.console.print(f"  [yellow]↩[/] undone: {text}")


def sites(console: Console, answer: Json) -> None:
    """The sites that are trusted."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("site", "key", ""):
        table.add_column(column, overflow="fold")
    for each in answer["sites"]:
        table.add_row(each["site"], each["key"], "this site" if each["own"] else f"since {each['added'][:10]}")
    console.print(table if answer["sites"] else "No site is trusted yet: not even this one has a key.")


def proof(console: Console, answer: Json) -> None:
    """A chain that holds: who signed what when, and what it answers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "document", "signed by", "at (UTC)", "answers"):
        table.add_column(column, overflow="fold")
    number = {link["digest"]: str(position) for position, link in enumerate(answer["links"], 1)}
    for link in answer["links"]:
        table.add_row(
            number[link["digest"]],
            escape(f"{link['document']} {link['id']}"),
            escape(link["signer"] or "-"),
            (link["signed"] or "")[:19].replace("T", " "),
            ", ".join(sorted((number[each] for each in link["answers"]), key=int)),
        )
    console.print(table)
    for link in answer["links"]:
        if "root" in link:
            way = f"{_size(link['size'])} from {link['sender']} to {link['receiver']}"
            console.print(f"[green]✓[/] {escape(link['id'])}: {escape(way)}, verified: root {link['root'][:23]}…")
    console.print(f"[green]✓[/] all {len(answer['links'])} links hold, and every signature is a trusted site's.")
