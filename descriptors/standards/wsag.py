"""WS-Agreement (GFD.192): our offers, agreements and agreement templates written as its XML, and read back.

How they map: an offer is an ``AgreementOffer``, an agreement an ``Agreement``, a template a ``Template``. The consumer
is the agreement initiator, the vendor the responder and the service provider, unless the offer says that the vendor
began. Each resource class is a ``ServiceDescriptionTerm`` and so is each allocation, the price, and the terms of a
move; each guarantee is a ``GuaranteeTerm`` whose objective is a ``KPITarget``, with the bound as its custom service
level (``availability GE 99.9``); constraints are ``CreationConstraints`` with the facets of XML Schema.

What does not map, because GFD.192 leaves it to the domain, is in elements of our own namespace, where the standard has
``xs:any``: what identifies the call and its documents by digest, places, the resource classes, allocations and
prices themselves, an agreement's state (which GFD.192 has as a resource property, not in the document), and the unit
of an objective (that of :data:`descriptors.sla.MEASURES`). So what we wrote is read back exactly, by anybody's parser;
of somebody else's WS-Agreement only what has all this can be read. ``ServiceReference``, ``ExactlyOne``, ``OneOrMore``,
``Preference``, ``CustomBusinessValue`` and free-form ``Constraint`` have no counterpart here and are refused.
Negotiation (GFD.193) has documents of its own: a counter-offer is none of these.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import get_args

from lxml import etree

from descriptors.base import NAMESPACE, Document
from descriptors.documents import MAX_BYTES, Form, dump, load
from descriptors.layout import Place, slots
from descriptors.sla import MEASURES, Agreement, AgreementTemplate, NegotiableTerm, Offer, Property
from descriptors.xml_form import read_foreign

WSAG = "http://schemas.ggf.org/graap/2007/03/ws-agreement"
XSD = "http://www.w3.org/2001/XMLSchema"
_OURS, _W, _XS = f"{{{NAMESPACE}}}", f"{{{WSAG}}}", f"{{{XSD}}}"
_MODELS: dict[str, type[Document]] = {model.tag: model for model in (Offer, Agreement, AgreementTemplate)}
_ROOTS = {"offer": "AgreementOffer", "agreement": "Agreement", "agreement-template": "Template"}
_ID = {"offer": "AgreementId", "agreement": "AgreementId", "agreement-template": "TemplateId"}
_PROVIDER = {"offer": "vendor", "agreement": "provider", "agreement-template": "vendor"}
_UNITS = {"penalty": "Penalty", "reward": "Reward"}
_FACETS = {"at_least": "minInclusive", "at_most": "maxInclusive"}
_LOCATIONS = {
    "price-per-hour": "//ca:price/@per_hour",
    "setup": "//ca:price/@setup",
    "egress-per-gib": "//ca:price/@egress_per_gib",
    "storage-per-gib-month": "//ca:price/@storage_per_gib_month",
    "minimum-days": "//ca:price/@minimum_days",
    "validity-seconds": "//wsag:Context/wsag:ExpirationTime",
    "move-egress-per-gib": "//ca:move/@egress_per_gib",
    "move-window-hours": "//ca:move/@window_hours",
    "move-downtime-seconds": "//ca:move/@downtime_seconds",
    "cores": "//ca:resource/@cores",
    "memory-mib": "//ca:resource/@memory_mib",
    "size-mib": "//ca:resource/@size_mib",
    "nodes": "//ca:resource/@nodes",
}


class WsagError(ValueError):
    """What was to be read is not WS-Agreement as we can understand it: what is wrong, and what was expected."""


# --- writing ---


def to_wsag(document: Offer | Agreement | AgreementTemplate) -> str:
    """The document as WS-Agreement XML."""
    ours = etree.fromstring(dump(document, Form.XML))
    tag = _local(ours)
    root = etree.Element(f"{_W}{_ROOTS[tag]}", nsmap={"wsag": WSAG, "ca": NAMESPACE, "xs": XSD})
    root.set(f"{_W}{_ID[tag]}", ours.attrib.pop("id"))
    if "application" in ours.attrib:
        etree.SubElement(root, f"{_W}Name").text = ours.attrib.pop("application")
    context = etree.SubElement(root, f"{_W}Context")
    everything = etree.SubElement(etree.SubElement(root, f"{_W}Terms"), f"{_W}All")
    _write_services(ours, everything)
    _write_guarantees(ours, everything)
    if tag == "agreement-template":
        _write_constraints(ours, root)
    _write_context(ours, context)
    etree.indent(root)
    return etree.tostring(root, encoding="unicode") + "\n"


def _write_context(ours: etree._Element, context: etree._Element) -> None:
    """Who, until when, after which template; what is left of our root element goes last."""
    provider = ours.attrib.pop(_PROVIDER[_local(ours)])
    consumer = ours.attrib.pop("consumer", None)
    provider_began = ours.get("initiator") == "provider"
    initiator, responder = (provider, consumer) if provider_began else (consumer, provider)
    _say(context, "AgreementInitiator", initiator)
    _say(context, "AgreementResponder", responder)
    _say(context, "ServiceProvider", "AgreementInitiator" if provider_began else "AgreementResponder")
    _say(context, "ExpirationTime", ours.attrib.pop("expires", None))
    template = ours.find(f"{_OURS}template")
    _say(context, "TemplateId", None if template is None else template.get("id"))
    context.append(ours)


def _say(parent: etree._Element, name: str, text: str | None) -> None:
    if text is not None:
        etree.SubElement(parent, f"{_W}{name}").text = text


def _write_services(ours: etree._Element, everything: etree._Element) -> None:
    """The service terms, and the properties that guarantees are about."""
    for path in ("services/service", "resources/resource", "allocations/allocation", "price", "move"):
        for part in _taken(ours, path):
            about = part.get("name") or part.get("resource") or part.get("type") or "everything"
            term = etree.SubElement(everything, f"{_W}ServiceDescriptionTerm")
            term.set(f"{_W}Name", _local(part))
            term.set(f"{_W}ServiceName", about)
            term.append(part)
    measured = dict.fromkeys(g.get("property", "") for g in ours.iter(f"{_OURS}guarantee", f"{_OURS}condition"))
    if measured:
        properties = etree.SubElement(everything, f"{_W}ServiceProperties")
        properties.set(f"{_W}Name", "measured")
        properties.set(f"{_W}ServiceName", "everything")
        variables = etree.SubElement(properties, f"{_W}VariableSet")
        for name in measured:
            variable = etree.SubElement(variables, f"{_W}Variable")
            variable.set(f"{_W}Name", name)
            variable.set(f"{_W}Metric", MEASURES[_property(name)].unit)
            etree.SubElement(variable, f"{_W}Location").text = "."


def _taken(ours: etree._Element, path: str) -> list[etree._Element]:
    """The parts at the path, taken out of the document with what only holds them."""
    wrapper, _, _ = path.rpartition("/")
    parts = ours.findall("/".join(f"{_OURS}{step}" for step in path.split("/")))
    for part in parts:
        part.tail = None
        part.getparent().remove(part)  # type: ignore[union-attr]
    holder = ours.find(f"{_OURS}{wrapper}") if wrapper else None
    if holder is not None:
        ours.remove(holder)
    return parts


def _write_guarantees(ours: etree._Element, everything: etree._Element) -> None:
    for guarantee in _taken(ours, "guarantees/guarantee"):
        term = etree.SubElement(everything, f"{_W}GuaranteeTerm")
        term.set(f"{_W}Name", guarantee.get("name", ""))
        term.set(f"{_W}Obligated", "ServiceProvider")
        for scope in guarantee.findall(f"{_OURS}scope"):
            etree.SubElement(term, f"{_W}ServiceScope").set(f"{_W}ServiceName", scope.text or "")
        condition = guarantee.find(f"{_OURS}condition")
        if condition is not None:
            _say(term, "QualifyingCondition", _bound_in_words(condition))
        target = etree.SubElement(etree.SubElement(term, f"{_W}ServiceLevelObjective"), f"{_W}KPITarget")
        _say(target, "KPIName", guarantee.get("property"))
        _say(target, "CustomServiceLevel", _bound_in_words(guarantee))
        _write_value(guarantee, etree.SubElement(term, f"{_W}BusinessValueList"))


def _write_value(guarantee: etree._Element, values: etree._Element) -> None:
    _say(values, "Importance", guarantee.get("importance"))
    for name, tag in _UNITS.items():
        if (percent := guarantee.get(name)) is not None:
            compensation = etree.SubElement(values, f"{_W}{tag}")
            interval = etree.SubElement(compensation, f"{_W}AssessmentInterval")
            _say(interval, "TimeInterval", f"P{guarantee.get('window_days')}D")
            _say(compensation, "ValueUnit", "percent")
            _say(compensation, "ValueExpression", percent)


def _bound_in_words(bounded: etree._Element) -> str:
    name, low = bounded.get("property"), bounded.get("at_least")
    return f"{name} LE {bounded.get('at_most')}" if low is None else f"{name} GE {low}"


def _write_constraints(ours: etree._Element, root: etree._Element) -> None:
    section = etree.SubElement(root, f"{_W}CreationConstraints")
    for constraint in _taken(ours, "constraints/constraint"):
        term, type_ = constraint.get("term", ""), constraint.get("type")
        item = etree.SubElement(section, f"{_W}Item")
        item.set(f"{_W}Name", f"{term} {type_}" if type_ else term)
        _say(item, "Location", _location(term, type_))
        facets = etree.SubElement(item, f"{_W}ItemConstraint")
        for attribute, facet in _FACETS.items():
            if (bound := constraint.get(attribute)) is not None:
                etree.SubElement(facets, f"{_XS}{facet}").set("value", bound)
        for choice in constraint.findall(f"{_OURS}choice"):
            etree.SubElement(facets, f"{_XS}enumeration").set("value", choice.text or "")


def _location(term: str, type_: str | None) -> str:
    """Where the term stands in an offer that is made after the template (XPath)."""
    if term in get_args(Property):
        return f"//wsag:KPITarget[wsag:KPIName='{term}']/wsag:CustomServiceLevel"
    return _LOCATIONS[term].replace("ca:resource/", f"ca:resource[@type='{type_}']/" if type_ else "ca:resource/")


def _property(name: str) -> NegotiableTerm:
    return next(known for known in MEASURES if known == name)


# --- reading ---


def from_wsag(text: str, name: str = "<input>") -> Offer | Agreement | AgreementTemplate:
    """The document in WS-Agreement XML. ``name`` is what errors call the source.

    Raises :class:`~descriptors.problems.DocumentError` for what is unsafe, no XML, or no document of ours in the end,
    and :class:`WsagError` for WS-Agreement that says too little for one, or more than one can hold.
    """
    if len(text) > MAX_BYTES:
        raise WsagError(f"{name}: larger than {MAX_BYTES} bytes; expected a smaller document")
    root = read_foreign(text, name, WSAG)
    tag = next((ours for ours, theirs in _ROOTS.items() if root.tag == f"{_W}{theirs}"), None)
    if tag is None:
        raise WsagError(f"{name}: the root is {root.tag!s}; expected one of {', '.join(_ROOTS.values())} of {WSAG}")
    context = _only(root, "Context")
    found = [child for child in context if child.tag == f"{_OURS}{tag}"]
    if len(found) != 1:
        raise WsagError(f"{name}: <Context> has no <{tag}> of {NAMESPACE}: what identifies the {tag} is missing")
    ours = copy.deepcopy(found[0])
    _read_identity(root, context, ours)
    _read_terms(_only(_only(root, "Terms"), "All"), root, ours)
    document = load(etree.tostring(ours, encoding="unicode"), form=Form.XML, expect=_MODELS[tag], name=name)
    assert isinstance(document, Offer | Agreement | AgreementTemplate)  # noqa: S101 - `expect` saw to it
    return document


def _read_identity(root: etree._Element, context: etree._Element, ours: etree._Element) -> None:
    tag = _local(ours)
    _set(ours, "id", root.get(f"{_W}{_ID[tag]}"))
    if tag != "agreement-template":
        _set(ours, "application", _text(root, "Name"))
    began = ours.get("initiator", "consumer")
    role = "AgreementInitiator" if began == "provider" else "AgreementResponder"
    if _text(context, "ServiceProvider") != role:
        raise WsagError(f"<ServiceProvider> is {_text(context, 'ServiceProvider')!r}; expected {role!r}: {began} began")
    initiator, responder = _text(context, "AgreementInitiator"), _text(context, "AgreementResponder")
    provider, consumer = (initiator, responder) if began == "provider" else (responder, initiator)
    _set(ours, _PROVIDER[tag], provider)
    if tag != "agreement-template":
        _set(ours, "consumer", consumer)
    _set(ours, "expires", _text(context, "ExpirationTime"))
    template = ours.find(f"{_OURS}template")
    if _text(context, "TemplateId") != (None if template is None else template.get("id")):
        raise WsagError("<TemplateId> names another template than the digest beside it belongs to")


def _set(ours: etree._Element, attribute: str, text: str | None) -> None:
    if attribute in ours.attrib:
        raise WsagError(f"<{_local(ours)}> says {attribute!r}, which WS-Agreement says elsewhere; expected it once")
    if text is not None:
        ours.set(attribute, text)


def _read_terms(everything: etree._Element, root: etree._Element, ours: etree._Element) -> None:
    """Put the terms where our document has them."""
    parts: dict[str, list[etree._Element]] = {}
    for term in everything:
        kind = _local(term)
        if kind == "ServiceDescriptionTerm":
            for part in term:
                parts.setdefault(_local(part), []).append(part)
        elif kind == "GuaranteeTerm":
            parts.setdefault("guarantee", []).append(_guarantee(term))
        elif kind != "ServiceProperties":
            raise WsagError(f"<{kind}> has no counterpart; expected service description and guarantee terms in <All>")
    section = root.find(f"{_W}CreationConstraints")
    parts["constraint"] = [] if section is None else [_constraint(item) for item in section]
    for child in list(ours):
        ours.remove(child)
        parts.setdefault(_local(child), []).append(child)
    for slot in (slot for slot in slots(_MODELS[_local(ours)]) if slot.place is Place.CHILD):
        if found := parts.pop(slot.tag, []):
            (etree.SubElement(ours, f"{_OURS}{slot.wrapper}") if slot.wrapper else ours).extend(found)
    if surplus := [name for name, found in parts.items() if found]:
        raise WsagError(f"<{surplus[0]}> has no place in {_local(ours)!r}")


def _guarantee(term: etree._Element) -> etree._Element:
    values = _only(term, "BusinessValueList")
    _no_more_than(term, "ServiceScope", "QualifyingCondition", "ServiceLevelObjective", "BusinessValueList")
    _no_more_than(values, "Importance", "Penalty", "Reward")
    if term.get(f"{_W}Obligated", "ServiceProvider") != "ServiceProvider":
        raise WsagError("a <GuaranteeTerm> obliges the consumer; expected Obligated='ServiceProvider'")
    target = _only(_only(term, "ServiceLevelObjective"), "KPITarget")
    guarantee = etree.Element(f"{_OURS}guarantee")
    for scope in term.findall(f"{_W}ServiceScope"):
        etree.SubElement(guarantee, f"{_OURS}scope").text = scope.get(f"{_W}ServiceName")
    if (condition := _text(term, "QualifyingCondition")) is not None:
        _bound(etree.SubElement(guarantee, f"{_OURS}condition"), condition)
    _bound(guarantee, _text(target, "CustomServiceLevel") or "")
    if _text(target, "KPIName") != guarantee.get("property"):
        raise WsagError(f"<KPIName> is {_text(target, 'KPIName')!r}, and the level is about another property")
    guarantee.set("name", term.get(f"{_W}Name", ""))
    _set(guarantee, "importance", _text(values, "Importance"))
    for attribute, tag in _UNITS.items():
        for compensation in _some(values, tag):
            _set(guarantee, attribute, _text(compensation, "ValueExpression"))
            if _text(compensation, "ValueUnit") != "percent":
                raise WsagError(f"<{tag}> is not in percent; expected <ValueUnit>percent</ValueUnit>")
            interval = _text(_only(compensation, "AssessmentInterval"), "TimeInterval") or ""
            days = interval.removeprefix("P").removesuffix("D")
            if guarantee.get("window_days", days) != days or interval != f"P{days}D":
                raise WsagError(f"<TimeInterval> is {interval!r}; expected days, such as 'P30D', the same in each")
            guarantee.set("window_days", days)
    return guarantee


def _bound(element: etree._Element, words: str) -> None:
    """Read ``availability GE 99.9``."""
    name, comparison, amount = [*words.split(), "", "", ""][:3]
    side = {"GE": "at_least", "LE": "at_most"}.get(comparison)
    if side is None or len(words.split()) != 3 or name not in get_args(Property):
        raise WsagError(f"{words!r} is no bound we know; expected a property, GE or LE, and a number")
    element.set("property", name)
    element.set(side, amount)


def _constraint(item: etree._Element) -> etree._Element:
    if _local(item) != "Item":
        raise WsagError(f"<{_local(item)}> among the creation constraints has no counterpart; expected <Item>")
    constraint = etree.Element(f"{_OURS}constraint")
    term, _, type_ = item.get(f"{_W}Name", "").partition(" ")
    constraint.set("term", term)
    if type_:
        constraint.set("type", type_)
    sides = {f"{_XS}{facet}": attribute for attribute, facet in _FACETS.items()}
    for facet in _only(item, "ItemConstraint"):
        if facet.tag in sides:
            constraint.set(sides[str(facet.tag)], facet.get("value", ""))
        elif facet.tag == f"{_XS}enumeration":
            etree.SubElement(constraint, f"{_OURS}choice").text = facet.get("value")
        else:
            raise WsagError(f"<{_local(facet)}> is no facet we know; expected minInclusive, maxInclusive, enumeration")
    return constraint


def _local(element: etree._Element) -> str:
    return str(etree.QName(element).localname)


def _some(parent: etree._Element, name: str) -> Iterator[etree._Element]:
    found = parent.findall(f"{_W}{name}")
    if len(found) > 1:
        raise WsagError(f"<{_local(parent)}> has several <{name}>; expected one")
    yield from found


def _only(parent: etree._Element, name: str) -> etree._Element:
    for element in _some(parent, name):
        return element
    raise WsagError(f"<{_local(parent)}> has no <{name}>")


def _text(parent: etree._Element, name: str) -> str | None:
    return next(((element.text or "").strip() for element in _some(parent, name)), None)


def _no_more_than(parent: etree._Element, *names: str) -> None:
    for child in parent:
        if child.tag not in {f"{_W}{name}" for name in names}:
            raise WsagError(f"<{_local(child)}> in <{_local(parent)}> has no counterpart")
