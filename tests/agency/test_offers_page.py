"""The page of offers: complete, and harmless whatever vendors write."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser

from agency.api.offers_page import offers_html
from broker.comparison import Answer, compare
from descriptors.application import Application, Command, Component, Tier
from descriptors.documents import digest
from descriptors.resources import Reason
from descriptors.sla import Refusal
from tests.broker.samples import DISK, MACHINE, NOW, call, offer

EVIL = "<script>alert('x')</script>\"'&<img src=x onerror=y>"
NOTES = Application(
    name="notes",
    description=EVIL,
    resources=(MACHINE, DISK),
    tiers=(
        Tier(
            name="all",
            components=(
                Component(name="one", resource="machine", commands=(Command(phase="start", line="run"),)),
            ),
        ),
    ),
)  # fmt: skip
ANSWERS: dict[str, Answer] = {
    "alpha": offer("alpha"),
    "beta": offer("beta", per_hour="0.02", availability="99.99"),
    "far": offer("far", region="mars"),
    "mute": Reason(code="no-answer", message="did not answer before the deadline"),
    "rude": Refusal(call="call-1", vendor="rude", reasons=(Reason(code="no", required=EVIL, message=EVIL),)),
}
WANTED = call(regions=("eu-west",), price_cap=Decimal(50))


def page(answers: dict[str, Answer]) -> str:
    """The page for these answers, a minute after they came."""
    return offers_html(NOTES, WANTED, compare(WANTED, answers, NOW), NOW + timedelta(minutes=1))


class _Tags(HTMLParser):
    """Collects the tags with their attributes, and the text; complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_everything_is_on_the_page() -> None:
    """Every offer with its terms, validity and digest; every vendor left out with the reason; what would change it."""
    text = re.sub(r"\s+", " ", _Tags(page(ANSWERS)).words)
    for found in (ANSWERS["alpha"], ANSWERS["beta"]):
        assert digest(found) in text
    for words in (
        "alpha is recommended", "99.99 % availability", "10 % of that time's price", "at most 50 EUR a month",
        "region mars, where eu-west is required", "did not answer before the deadline",
        "beta would be first if price weighed less than", "Binding until 20 November 2026, 12:15:00 UTC",
    ):  # fmt: skip
        assert words in text, words


def test_the_page_needs_nothing_and_runs_nothing() -> None:
    """No script, no link, no picture, no handler: nothing on it could be fetched or run, and a policy forbids both."""
    parsed = _Tags(page(ANSWERS))
    assert not parsed.open, "every element is closed"
    assert {tag for tag, _ in parsed.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "form", "a", "base"}
    )
    names = {name for _, attributes in parsed.tags for name in attributes}
    assert not {name for name in names if name in ("src", "href") or name.startswith("on")}
    assert not re.search(r"url\(|@import|https?:", page(ANSWERS))
    policies = [attributes for tag, attributes in parsed.tags if "http-equiv" in attributes]
    assert "default-src 'none'" in str(policies[0]["content"])


def test_what_vendors_and_deployers_write_is_shown_as_they_wrote_it() -> None:
    """Markup in a document's words is text on the page."""
    assert _Tags(page(ANSWERS)).words.count(EVIL) == 3


def test_nobody_qualifies() -> None:
    """Without a qualified offer the page says so, and why each was left out."""
    text = _Tags(page({"far": ANSWERS["far"]})).words
    assert "No vendor qualifies" in text
    assert "region mars" in text
