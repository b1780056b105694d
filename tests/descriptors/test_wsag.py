"""WS-Agreement: what is written is read back, it has the standard's shape, and what has no counterpart is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from descriptors.documents import digest
from descriptors.problems import DocumentError
from descriptors.sla import Agreement, AgreementTemplate, Offer
from descriptors.standards.wsag import WSAG, WsagError, from_wsag, to_wsag
from tests.descriptors.strategies import agreements, offers, templates
from tests.descriptors.test_documents import OFFER

NAMES = {"wsag": WSAG, "xs": "http://www.w3.org/2001/XMLSchema", "ca": "urn:cloud-agency:documents:1"}
GUARANTEED = OFFER.model_validate(
    dict(OFFER)
    | {
        "guarantees": (
            {
                "name": "up", "property": "availability", "at_least": Decimal("99.9"), "penalty": Decimal(10),
                "reward": Decimal(1), "importance": 3, "scope": ("m",),
                "condition": {"property": "request-rate", "at_most": Decimal(100)},
            },
        ),
        "consumer": "deployer",
    }
)  # fmt: skip
TEXT = to_wsag(GUARANTEED)


@given(st.one_of(offers, agreements, templates))
def test_round_trip(document: Offer | Agreement | AgreementTemplate) -> None:
    """A document written as WS-Agreement and read back is the same, to the digest."""
    again = from_wsag(to_wsag(document))
    assert again == document
    assert digest(again) == digest(document)


def test_an_offer_has_the_shape_of_the_standard() -> None:
    """Another implementation finds the parties, the expiry and the guarantee where GFD.192 has them."""
    root = etree.fromstring(TEXT)

    def said(path: str) -> list[str]:
        return [str(found) for found in root.xpath(path, namespaces=NAMES)]

    assert root.tag == f"{{{WSAG}}}AgreementOffer"
    assert [etree.QName(child).localname for child in root] == ["Name", "Context", "Terms"]
    assert said("wsag:Context/wsag:AgreementInitiator/text()") == ["deployer"]
    assert said("wsag:Context/wsag:AgreementResponder/text()") == ["no"]
    assert said("wsag:Context/wsag:ServiceProvider/text()") == ["AgreementResponder"]
    assert said("wsag:Context/wsag:ExpirationTime/text()") == ["2026-11-22T11:00:00Z"]
    term = "wsag:Terms/wsag:All/wsag:GuaranteeTerm"
    assert said(f"{term}/@wsag:Obligated") == ["ServiceProvider"]
    assert said(f"{term}/wsag:ServiceScope/@wsag:ServiceName") == ["m"]
    assert said(f"{term}/wsag:QualifyingCondition/text()") == ["request-rate LE 100"]
    assert said(f"{term}/wsag:ServiceLevelObjective/wsag:KPITarget/wsag:KPIName/text()") == ["availability"]
    assert said(f"{term}//wsag:CustomServiceLevel/text()") == ["availability GE 99.9"]
    values = f"{term}/wsag:BusinessValueList"
    assert [etree.QName(v).localname for v in root.xpath(f"{values}/*", namespaces=NAMES)] == [
        "Importance", "Penalty", "Reward",
    ]  # fmt: skip
    assert said(f"{values}/wsag:Penalty/wsag:AssessmentInterval/wsag:TimeInterval/text()") == ["P30D"]
    assert said(f"{values}/wsag:Penalty/wsag:ValueExpression/text()") == ["10"]
    assert said("//wsag:Variable[@wsag:Name='availability']/@wsag:Metric") == ["%"]


@given(templates)
def test_locations_are_xpath(template: AgreementTemplate) -> None:
    """Every creation constraint says by XPath which part of an offer it is about."""
    root = etree.fromstring(to_wsag(template))
    for location in root.iterfind(".//wsag:Item/wsag:Location", NAMES):
        etree.XPath(location.text or "", namespaces=NAMES)


def test_what_is_changed_in_wsag_is_read() -> None:
    """Each thing is said once: who changes it in WS-Agreement changes our document."""
    changed = from_wsag(TEXT.replace("GE 99.9<", "GE 99.5<").replace(">deployer<", ">somebody<"))
    assert isinstance(changed, Offer)
    assert (changed.availability(), changed.guarantees[0].at_least) == (None, Decimal("99.5"))
    assert changed.consumer == "somebody"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("wsag:AgreementOffer", "wsag:AgreementProperties", "expected one of AgreementOffer, Agreement, Template"),
        ("ca:offer", "ca:other", "<Context> has no <offer>"),
        ("<ca:offer ", '<ca:offer id="x" ', "says 'id', which WS-Agreement says elsewhere"),
        (">AgreementResponder<", ">AgreementInitiator<", "expected 'AgreementResponder': consumer began"),
        ("<wsag:Context>", "<wsag:Context><wsag:TemplateId>t</wsag:TemplateId>", "names another template"),
        ("wsag:All", "wsag:ExactlyOne", "<Terms> has no <All>"),
        ("<wsag:All>", "<wsag:All><wsag:ServiceReference/>", "<ServiceReference> has no counterpart"),
        ('"ServiceProvider"', '"ServiceConsumer"', "obliges the consumer"),
        ("availability GE 99.9", "as good as can be", "is no bound we know"),
        ("availability GE 99.9", "recovery-time LE 9", "the level is about another property"),
        (">P30D<", ">PT1H<", "expected days, such as 'P30D'"),
        (">percent<", ">EUR<", "is not in percent"),
        ("</wsag:BusinessValueList>", "<wsag:Preference/></wsag:BusinessValueList>", "<Preference> in <BusinessValue"),
    ],
)
def test_what_cannot_be_understood_is_refused(old: str, new: str, expected: str) -> None:
    """WS-Agreement that says too little, two things at once, or what we have no word for, is refused in clear words."""
    assert old in TEXT
    with pytest.raises(WsagError, match=expected.replace("(", r"\(")):
        from_wsag(TEXT.replace(old, new))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<wsag:AgreementOffer",
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        TEXT.replace("99.9<", "101<"),
        TEXT.replace("<wsag:All>", '<wsag:All xmlns:xsi="urn:x" xsi:schemaLocation="http://127.0.0.1:9/">'),
        TEXT.replace('currency="EUR"', ""),
    ],
)
def test_the_door_is_the_same(text: str) -> None:
    """What is unsafe, broken, or no valid document in the end, is refused as any document is."""
    with pytest.raises(DocumentError):
        from_wsag(text)
