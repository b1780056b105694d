"""Documents survive every form, and their digests tell any two apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descriptors.base import Document
from descriptors.documents import DOCUMENTS, Form, canonical, digest, dump, load
from descriptors.sla import Offer
from tests.descriptors.strategies import DOCUMENTS as STRATEGIES
from tests.descriptors.strategies import offers

OFFER = load(
    """
    document: offer
    version: 1
    id: 12
    call: 1e3
    application: null-and-void
    vendor: no
    issued: 2026-11-22T10:00:00Z
    expires: 2026-11-22T12:00:00+01:00
    region: on
    jurisdiction: NO
    price: {currency: EUR, per_hour: 0.10, per_month: 73}
    resources: [{name: m, type: COMPUTE, cores: 2}]
    allocations: [{resource: m, size: s, price_per_hour: 0.1}]
    """,
    expect=Offer,
)
EACH = pytest.mark.parametrize("model", STRATEGIES, ids=lambda model: model.tag)


def test_every_document_has_a_strategy() -> None:
    """The registry and the strategies know the same documents, so that no document goes untested."""
    assert dict(DOCUMENTS) == {model.tag: model for model in STRATEGIES}


@EACH
@given(data=st.data())
def test_round_trip(model: type[Document], data: st.DataObject) -> None:
    """A document printed in any form and loaded again is equal, has the same canonical bytes and prints the same."""
    document = data.draw(STRATEGIES[model])
    for form in Form:
        text = dump(document, form)
        again = load(text, expect=model)
        assert again == document
        assert canonical(again) == canonical(document)
        assert dump(again, form) == text


@EACH
@given(data=st.data())
def test_pydantic_xml_reads_the_same(model: type[Document], data: st.DataObject) -> None:
    """Our reading of XML, which knows places, gives what pydantic-xml itself gives."""
    document = data.draw(STRATEGIES[model])
    text = dump(document, Form.XML)
    assert model.from_xml(text, empty_as_string=True) == load(text)


@given(offer=offers, other=offers)
def test_digests_differ_exactly_when_documents_do(offer: Offer, other: Offer) -> None:
    """Two documents have the same digest only if they print the same."""
    assert (digest(offer) == digest(other)) == (dump(offer, Form.JSON) == dump(other, Form.JSON))


@given(offer=offers, data=st.data())
def test_digest_changes_with_any_field(offer: Offer, data: st.DataObject) -> None:
    """Changing any one field of an offer changes its digest."""
    other = data.draw(offers)
    for field in Offer.model_fields:
        changed: dict[str, Any] = {field: getattr(other, field)}
        if getattr(offer, field) != changed[field]:
            assert digest(offer.model_copy(update=changed)) != digest(offer)


@pytest.mark.parametrize("other", ["2026-11-22T12:00:00+02:00", "2026-11-22T05:00:00.000-05:00"])
def test_equal_moments_have_equal_digests(other: str) -> None:
    """The offset in which a moment was written does not change what is signed."""
    text = dump(OFFER, Form.JSON)
    assert "2026-11-22T10:00:00Z" in text
    assert digest(load(text.replace("2026-11-22T10:00:00Z", other))) == digest(OFFER)


def test_canonical_is_stable() -> None:
    """The canonical bytes and the digest of a known document never change: signatures depend on them."""
    text = '{"document":"refusal","call":"c-1","vendor":"v","reasons":[{"code":"busy","message":"é"}]}'
    document = load(text)
    expected = (
        '{"call":"c-1","document":"refusal","reasons":[{"code":"busy","message":"é"}],"vendor":"v","version":"1"}'
    )
    assert canonical(document) == expected.encode()
    assert digest(document).startswith("blake3:")
    assert len(digest(document)) == len("blake3:") + 64


def test_forms_are_recognised(tmp_path: Path) -> None:
    """Text is recognised by its first character, a file by its suffix, whatever it holds."""
    document = load('{"document":"refusal","call":"c","vendor":"v","reasons":[{"code":"x","message":"m"}]}')
    for form in Form:
        text = dump(document, form)
        path = tmp_path / f"x.{form}"
        path.write_text(text, encoding="utf-8")
        assert load(path) == load(text) == load(text.encode()) == load(b"\xef\xbb\xbf" + text.encode()) == document
    (tmp_path / "x.yml").write_text(dump(document, Form.JSON), encoding="utf-8")
    assert load(tmp_path / "x.yml") == document


def test_bare_words_and_numbers_are_what_the_model_says() -> None:
    """In YAML and JSON ``no`` is a name, ``1`` a version and ``0.10`` a price, without quotes and without floats."""
    assert (OFFER.version, OFFER.id, OFFER.call, OFFER.vendor, OFFER.region) == ("1", "12", "1e3", "no", "on")
    assert str(OFFER.price.per_hour) == "0.10"
    numbers = dump(OFFER, Form.JSON).replace('"0.10"', "0.10").replace('"12"', "12")
    assert load(numbers) == OFFER
