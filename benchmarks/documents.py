"""What the door costs: reading an application descriptor with every check, beside lxml's bare parsing of it."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

from benchmarks.measuring import Figure, in_turn
from descriptors.documents import Form, dump, load

REPEATS = 50


async def run() -> list[Figure]:
    """Times are for one document."""
    xml = (Path(__file__).parent.parent / "examples" / "guestbook" / "application.xml").read_bytes()
    document = load(xml)
    json = dump(document, Form.JSON)

    async def ours_xml() -> None:
        for _ in range(REPEATS):
            load(xml)

    async def ours_json() -> None:
        for _ in range(REPEATS):
            load(json)

    async def bare() -> None:
        for _ in range(REPEATS):
            etree.fromstring(xml)

    figures = [
        await in_turn("load XML", ours_xml, "lxml parses it", bare, 9),
        await in_turn("load JSON", ours_json, "lxml parses the XML", bare, 9),
    ]
    return [Figure(f.what, f.seconds / REPEATS, f.floor, f.floor_seconds / REPEATS) for f in figures]
