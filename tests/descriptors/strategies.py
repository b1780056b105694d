"""Hypothesis strategies that build valid documents of every kind, with Unicode text and extreme values.

Models whose fields do not lean on each other are built from their own annotations (``st.from_type`` would not know the
patterns); those with rules across fields have a strategy that keeps the rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, get_args

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from descriptors.application import (
    Application,
    Attribute,
    BucketUse,
    Command,
    Component,
    File,
    Probe,
    Requirements,
    Rewrite,
    Tier,
    Traffic,
    VolumeUse,
    Weight,
)
from descriptors.base import Document, Reference
from descriptors.cfp import CallForProposals, Flow, Part
from descriptors.comparison import Comparison, Composition, Criterion, Incident, Ranked, Record
from descriptors.deployment import DeployedResource, Deployment, Endpoint, Kind
from descriptors.directory import Registration, Search, SearchResult
from descriptors.messages import Action, Problem, Request
from descriptors.negotiation import Mandate, Negotiation, Outcome, Turn
from descriptors.relocation import Item, RelocationPlan, RelocationReceipt, Stage, Task
from descriptors.resources import Reason, ResourceClass, ResourceType
from descriptors.sla import (
    MEASURES,
    Agreement,
    AgreementState,
    AgreementTemplate,
    Allocation,
    Change,
    Condition,
    Constraint,
    CounterOffer,
    GuaranteeTerm,
    MoveTerms,
    NegotiableTerm,
    Offer,
    PriceTerms,
    Property,
    Refusal,
    Service,
    Term,
)
from descriptors.transfer import TransferManifest
from descriptors.trust import Acceptance, Delegation

_ALPHABET = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
_SPACED = st.one_of(_ALPHABET, st.sampled_from("\n\t <>&'\"]{}:#-~*!|%@`"))


def printable(min_size: int = 0, max_size: int = 40) -> SearchStrategy[str]:
    """Any Unicode that XML can carry, rich in characters that mean something to XML, YAML or JSON."""
    return st.text(_SPACED, min_size=min_size, max_size=max_size)


names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True) | st.sampled_from(
    ["0", "null", "true", "no", "1e3", "a" * 40]
)
identifiers = st.from_regex(r"[A-Za-z0-9._:/@-]{1,30}", fullmatch=True) | st.sampled_from(["x" * 255, "."])
labels = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", fullmatch=True)
texts = printable(1).map(str.strip).filter(bool) | st.just("é" * 4096)
words = printable(1) | st.just(" ")
money = st.decimals(0, Decimal("999999999999.999999"), places=6) | st.sampled_from(
    [Decimal(0), Decimal("1E+2"), Decimal("0.10"), Decimal("999999999999")]
)
quantities = money
percents = st.decimals(0, 100, places=6) | st.sampled_from([Decimal(0), Decimal("1E+2"), Decimal("99.90")])
shares = st.decimals(0, 1, places=6) | st.sampled_from([Decimal(0), Decimal(1), Decimal("0.50")])
currencies = st.from_regex(r"[A-Z]{3}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: f"blake3:{raw.hex()}")
tokens = st.from_regex(r"[A-Za-z0-9_-]{1,40}(\.[A-Za-z0-9_-]{1,40}){2}", fullmatch=True)
sizes = st.integers(0, 2**60)
mebibytes = st.integers(1, 2**40)
seconds = st.floats(0, allow_nan=False, allow_infinity=False)
revisions = st.integers(1, 2**53)
_offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_FIRST, _LAST = datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30")
moments = st.datetimes(_FIRST, _LAST, timezones=_offsets | st.just(UTC))
paths = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="/\\~\ufffe\uffff"), min_size=1
    )
    .filter(lambda part: part != "..")
    .map(lambda part: part[:20]),
    min_size=1,
    max_size=3,
).map("/".join)
probe_paths = st.from_regex(r"/[!-~]{0,60}", fullmatch=True)


def some(strategy: SearchStrategy[Any], least: int = 0, **unique: Any) -> SearchStrategy[tuple[Any, ...]]:
    """A short tuple."""
    return st.lists(strategy, min_size=least, max_size=3, **unique).map(tuple)


def maybe(strategy: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """None or a value."""
    return st.none() | strategy


def built(model: Callable[..., Any], **fields: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Models from strategies for their fields."""
    return st.builds(model, **fields)


requirements = built(
    Requirements,
    regions=some(labels),
    jurisdictions=some(labels),
    availability=maybe(percents),
    price_cap=maybe(money),
    currency=currencies,
    preferences=some(labels),
    weights=some(
        built(Weight, attribute=st.sampled_from(get_args(Attribute)), value=money),
        unique_by=lambda weight: weight.attribute,
    ),
)
probes = built(Probe, path=probe_paths)
reasons = built(
    Reason,
    code=names,
    resource=maybe(names),
    required=maybe(printable()),
    offered=maybe(printable() | st.just("y" * 255)),
    message=words,
)


@st.composite
def resource_classes(
    draw: DrawFn, type_: ResourceType | None = None, kind: str | None = None, name: str | None = None
) -> ResourceClass:
    """A resource class; of that type, kind and name if given."""
    type_ = type_ or draw(st.sampled_from(ResourceType))
    fields: dict[str, Any] = {"name": name or draw(names), "type": type_}
    if type_ is ResourceType.STORAGE:
        fields["kind"] = kind or draw(st.sampled_from(["block", "object"]))
        if fields["kind"] == "block":
            fields |= {"size_mib": draw(mebibytes), "fallback": draw(st.sampled_from([None, "machine-disk"]))}
    if type_ in (ResourceType.COMPUTE, ResourceType.CLUSTER, ResourceType.MAP_REDUCE):
        fields |= {"cores": draw(maybe(st.integers(1, 4096))), "memory_mib": draw(maybe(mebibytes))}
    if type_ in (ResourceType.CLUSTER, ResourceType.MAP_REDUCE):
        fields["nodes"] = draw(maybe(st.integers(1, 10_000)))
    if draw(st.booleans()):
        fields |= {"provider": draw(names), "agreement": draw(identifiers)}
    return ResourceClass(**fields)


@st.composite
def components(
    draw: DrawFn, name: str, machines: list[str], volumes: list[str], buckets: list[str], earlier: list[str]
) -> Component:
    """A component that uses these resources and may depend on the earlier components."""
    uses = {
        "volumes": tuple(VolumeUse(resource=v, device=f"dev/{v}") for v in volumes),
        "buckets": tuple(BucketUse(resource=b) for b in buckets),
        "depends_on": tuple(draw(st.sets(st.sampled_from(earlier)))) if earlier else (),
    }
    targets = draw(st.lists(paths, unique=True, max_size=2))
    files = tuple(
        File(source=draw(paths), target=target, digest=draw(maybe(digests)), size=draw(maybe(sizes)))
        for target in targets
    )
    holes = [f"{{volume.{v}.device}}" for v in volumes] + [f"{{bucket.{b}.secret_key}}" for b in buckets]
    holes += [f"{{component.{c}.url}}" for c in uses["depends_on"]]
    literal = printable(0, 20).map(lambda text: text.replace("{", "("))
    rewrites = [
        Rewrite(file=t, pattern=re.escape(draw(words)), value=draw(literal) + draw(st.sampled_from(["", *holes])))
        for t in targets
    ]
    commands = [Command(phase="install", line=line) for line in draw(st.lists(texts, max_size=2))]
    commands.append(Command(phase="start", line=draw(texts)))
    port = draw(maybe(st.integers(1, 65535)))
    sends = st.tuples(st.sampled_from([None, *(other for other in earlier if other != name)]), quantities)
    traffic = draw(st.lists(sends, max_size=2, unique_by=lambda one: one[0]))
    checks = {"health": draw(maybe(probes)), "content": draw(maybe(probes))} if port else {}
    return Component(
        name=name,
        resource=draw(st.sampled_from(machines)),
        image=draw(names),
        port=port,
        files=files,
        commands=tuple(commands),
        sends=tuple(Traffic(to=to, gib_month=gib) for to, gib in traffic),
        rewrites=tuple(rewrites),
        **uses,
        **checks,
    )


@st.composite
def applications(draw: DrawFn) -> Application:
    """An application whose references hold together."""
    every = draw(st.lists(names, min_size=4, max_size=9, unique=True))
    machines, volumes, buckets = every[:1], every[1:2], every[2:3]
    resources = [draw(resource_classes(ResourceType.COMPUTE, name=machines[0]))]
    resources += [draw(resource_classes(ResourceType.STORAGE, "block", v)) for v in volumes]
    resources += [draw(resource_classes(ResourceType.STORAGE, "object", b)) for b in buckets]
    parts: list[Component] = []
    for name in every[3:6]:
        own = volumes if not parts else []
        parts.append(draw(components(name, machines, own, buckets, [p.name for p in parts])))
    cut = draw(st.integers(1, len(parts)))
    tiers = [Tier(name="front", components=tuple(parts[:cut]))]
    if parts[cut:]:
        tiers.append(Tier(name="back", components=tuple(parts[cut:])))
    return Application(
        name=draw(names),
        description=draw(maybe(texts)),
        requirements=draw(requirements),
        resources=tuple(resources),
        tiers=tuple(draw(st.permutations(tiers))),
    )


references = built(Reference, id=identifiers, digest=digests)
prices = built(
    PriceTerms,
    currency=currencies,
    per_hour=money,
    per_month=money,
    setup=money,
    egress_per_gib=money,
    storage_per_gib_month=maybe(money),
    minimum_days=maybe(st.integers(1, 3660)),
    maximum_days=maybe(st.integers(1, 3660)),
)
allocations = built(Allocation, resource=names, size=identifiers, price_per_hour=money)
_promises = {"egress_per_gib": money, "window_hours": quantities, "downtime_seconds": quantities}
moves = st.fixed_dictionaries({}, optional=_promises).filter(bool).map(lambda fields: MoveTerms(**fields))


@st.composite
def conditions(draw: DrawFn) -> Condition:
    """A qualifying condition, bounded on either side."""
    property_ = draw(st.sampled_from(get_args(Property)))
    bound = draw(percents if property_ == "availability" else quantities)
    return Condition(property=property_, **{draw(st.sampled_from(["at_least", "at_most"])): bound})


@st.composite
def guarantee_terms(draw: DrawFn) -> GuaranteeTerm:
    """A guarantee of any property, bounded on the side that the property asks for."""
    property_ = draw(st.sampled_from(get_args(Property)))
    side = "at_least" if MEASURES[property_].more_is_better else "at_most"
    return GuaranteeTerm(
        name=draw(names),
        property=property_,
        **{side: draw(percents if property_ == "availability" else quantities)},
        window_days=draw(st.integers(1, 366)),
        penalty=draw(percents),
        reward=draw(maybe(percents)),
        importance=draw(maybe(st.integers(1, 100))),
        scope=draw(some(names)),
        condition=draw(maybe(conditions())),
    )


guarantees = guarantee_terms()


@st.composite
def constraints(draw: DrawFn) -> Constraint:
    """A constraint that something meets: a range, choices, or none."""
    low, high = sorted(draw(st.tuples(quantities, quantities)))
    bounds = st.sampled_from([{}, {"at_least": low}, {"at_most": high}, {"at_least": low, "at_most": high}])
    return Constraint(
        term=draw(st.sampled_from(get_args(Term))),
        type=draw(maybe(st.sampled_from(ResourceType))),
        **draw(bounds | some(quantities, 1).map(lambda values: {"choices": values})),
    )


services = built(Service, type=st.sampled_from(ResourceType), kind=st.sampled_from([None, "block", "object"]))
templates = built(
    AgreementTemplate,
    id=identifiers,
    vendor=names,
    issued=moments,
    expires=moments,
    currency=currencies,
    jurisdiction=labels,
    regions=some(labels, 1),
    services=some(services, 1),
    guarantees=some(guarantees),
    constraints=some(constraints()),
)
counter_offers = built(
    CounterOffer,
    id=identifiers,
    call=identifiers,
    application=names,
    vendor=names,
    consumer=maybe(identifiers),
    issued=moments,
    expires=moments,
    offer=references,
    changes=some(
        built(Change, term=st.sampled_from(get_args(NegotiableTerm)), value=quantities), 1, unique_by=lambda c: c.term
    ),
)
calls = built(
    CallForProposals,
    id=identifiers,
    application=names,
    purpose=st.sampled_from(["deployment", "relocation", "renegotiation"]),
    issued=moments,
    reply_by=moments,
    vendors=some(names),
    requirements=requirements,
    resources=some(resource_classes(), 1),
    supersedes=maybe(references),
    components=some(names),
    parts=some(built(Part, components=some(names, 1), resources=some(names, 1))),
    flows=some(built(Flow, sender=names, receiver=maybe(names), gib_month=quantities)),
)
offers = built(
    Offer,
    id=identifiers,
    call=identifiers,
    application=names,
    vendor=names,
    issued=moments,
    expires=moments,
    region=labels,
    jurisdiction=labels,
    carbon_g_per_kwh=maybe(quantities),
    consumer=maybe(identifiers),
    initiator=st.sampled_from([None, "provider", "consumer"]),
    price=prices,
    resources=some(resource_classes(), 1),
    allocations=some(allocations, 1),
    guarantees=some(guarantees),
    move=maybe(moves),
    template=maybe(references),
    answers=maybe(references),
    components=some(names),
    supersedes=maybe(references),
)
refusals = built(Refusal, call=identifiers, vendor=names, reasons=some(reasons, 1))
compositions = built(
    Composition,
    id=identifiers,
    call=identifiers,
    application=names,
    expires=moments,
    traffic_month=money,
    proven=st.booleans(),
    price=prices,
    offers=some(offers, 1),
)
rows = built(
    Ranked,
    vendor=maybe(names),
    score=maybe(st.floats(0, 1)),
    chosen=st.booleans(),
    efficient=st.booleans(),
    monthly_cost=maybe(money),
    wins_below=maybe(money),
    offer=maybe(offers),
    composition=maybe(compositions),
    criteria=some(
        built(
            Criterion,
            attribute=st.sampled_from(get_args(Attribute)),
            utility=shares,
            weight=shares,
            above=maybe(shares),
            below=maybe(shares),
            value=words,
        )
    ),
    excluded_because=some(reasons),
)
counts = st.integers(0, 2**53)
records = built(
    Record,
    vendor=names,
    revision=revisions,
    agreements=counts,
    broken=counts,
    incidents=some(
        built(
            Incident,
            about=identifiers,
            code=names,
            application=names,
            at=moments,
            penalty=maybe(money),
            message=words,
        )
    ),
)
comparisons = built(Comparison, call=identifiers, application=names, rows=some(rows))
mandates = built(
    Mandate,
    application=names,
    purpose=st.sampled_from(["deployment", "relocation", "renegotiation"]),
    strategy=names,
    budget=maybe(money),
    rounds=st.integers(1, 100),
    seconds=maybe(st.integers(1, 86400)),
    commit_days=maybe(st.integers(1, 3660)),
    vendor=maybe(names),
    component=maybe(names),
    call=maybe(identifiers),
)
turns = built(
    Turn,
    at=moments,
    round=st.integers(1, 1000),
    vendor=names,
    act=st.sampled_from(["offer", "counter-offer", "refusal", "silence", "too-late"]),
    document=maybe(identifiers),
    price_per_hour=maybe(money),
    minimum_days=maybe(st.integers(1, 3660)),
    changes=some(built(Change, term=st.sampled_from(get_args(NegotiableTerm)), value=quantities)),
    reason=maybe(reasons),
)
outcomes = built(
    Outcome,
    vendor=names,
    result=st.sampled_from(["offer", "none"]),
    offer=maybe(identifiers),
    first_per_hour=maybe(money),
    last_per_hour=maybe(money),
    rounds=st.integers(0, 1000),
    why=reasons,
)
negotiations = built(
    Negotiation,
    call=identifiers,
    application=names,
    purpose=st.sampled_from(["deployment", "relocation", "renegotiation"]),
    strategy=names,
    currency=currencies,
    budget=maybe(money),
    began=moments,
    ended=moments,
    deadline=moments,
    rounds=st.integers(1, 1000),
    turns=some(turns),
    outcomes=some(outcomes),
)
delegations = built(
    Delegation,
    id=identifiers,
    application=names,
    delegate=identifiers,
    per_month=money,
    currency=currencies,
    issued=moments,
    until=moments,
)
acceptances = built(
    Acceptance,
    id=identifiers,
    application=names,
    call=identifiers,
    offer=identifiers,
    offer_digest=digests,
    accepted=moments,
)
agreements = built(
    Agreement,
    id=identifiers,
    application=names,
    offer=identifiers,
    offer_digest=digests,
    provider=names,
    consumer=names,
    state=st.sampled_from(get_args(AgreementState)),
    agreed=moments,
    expires=maybe(moments),
    price=prices,
    resources=some(resource_classes(), 1),
    allocations=some(allocations, 1),
    guarantees=some(guarantees),
    move=maybe(moves),
    components=some(names),
    supersedes=maybe(references),
)
deployed = built(
    DeployedResource,
    kind=st.sampled_from(get_args(Kind)),
    id=identifiers,
    name=labels,
    vendor=names,
    agreement=identifiers,
    key=identifiers,
    component=maybe(names),
    resource=maybe(names),
)
deployments = built(
    Deployment,
    id=identifiers,
    application=names,
    revision=revisions,
    changed=moments,
    status=st.sampled_from(["deploying", "running", "stopped", "failed", "destroyed"]),
    agreements=some(identifiers, 1),
    resources=some(deployed),
    endpoints=some(built(Endpoint, component=names, url=texts)),
)
items = built(
    Item,
    action=st.sampled_from(["move", "stay", "adapt"]),
    kind=st.sampled_from([*get_args(Kind), "configuration"]),
    name=names,
    bytes=sizes,
    digest=maybe(digests),
    root=maybe(digests),
    what=texts,
)
tasks = built(Task, name=names, migrator=names, vendor=maybe(names), subject=maybe(names), needs=some(names))
plans = built(
    RelocationPlan,
    id=identifiers,
    application=names,
    deployment=identifiers,
    revision=revisions,
    source=names,
    target=names,
    offer=identifiers,
    created=moments,
    expires=moments,
    bytes=sizes,
    seconds=seconds,
    downtime_seconds=seconds,
    price_before=prices,
    price_after=prices,
    components=some(names, 1),
    items=some(items),
    tasks=some(tasks),
)
receipts = built(
    RelocationReceipt,
    id=identifiers,
    plan=identifiers,
    plan_digest=digests,
    application=names,
    agreement=maybe(identifiers),
    source=names,
    target=names,
    outcome=st.sampled_from(["relocated", "rolled-back", "cancelled"]),
    started=moments,
    finished=moments,
    bytes_moved=sizes,
    seconds=seconds,
    downtime_seconds=seconds,
    content_before=maybe(digests),
    content_after=maybe(digests),
    items=some(items),
    stages=some(built(Stage, task=names, seconds=seconds)),
    problems=some(reasons),
    manifests=some(tokens),
)
manifests = built(
    TransferManifest,
    id=identifiers,
    name=texts,
    size=sizes,
    root=digests,
    block_size=sizes,
    wire=sizes,
    sender=identifiers,
    receiver=identifiers,
    started=moments,
    finished=moments,
)

requests = built(
    Request,
    action=st.sampled_from(get_args(Action)),
    subject=identifiers,
    vendor=maybe(names),
    component=maybe(names),
    delegations=some(tokens),
)
problems = built(Problem, code=names, message=texts, remedy=texts, retryable=st.booleans(), receipt=maybe(identifiers))

_services: SearchStrategy[Any] = st.lists(st.sampled_from(["compute", "block", "object"]), max_size=3).map(tuple)
registrations = st.builds(
    Registration,
    vendor=names,
    agent=st.from_regex(r"[a-z0-9._-]{1,100}@[a-z0-9.-]{1,150}", fullmatch=True),
    until=moments,
    gone=st.none() | moments,
    currency=st.none() | currencies,
    price_from=st.none() | money,
    price_to=st.none() | money,
    services=_services,
    regions=st.lists(labels, max_size=2).map(tuple),
    jurisdictions=st.lists(labels, max_size=2).map(tuple),
    capabilities=st.lists(names, max_size=2).map(tuple),
)
searches = st.builds(
    Search,
    site=st.none() | st.from_regex(r"[a-z0-9.-]{1,150}", fullmatch=True),
    gone=st.booleans(),
    currency=st.none() | currencies,
    services=_services,
    regions=st.lists(labels, max_size=2).map(tuple),
    jurisdictions=st.lists(labels, max_size=2).map(tuple),
)

DOCUMENTS: dict[type[Document], SearchStrategy[Any]] = {
    Application: applications(),
    CallForProposals: calls,
    AgreementTemplate: templates,
    Offer: offers,
    CounterOffer: counter_offers,
    Mandate: mandates,
    Negotiation: negotiations,
    Refusal: refusals,
    Composition: compositions,
    Comparison: comparisons,
    Delegation: delegations,
    Acceptance: acceptances,
    Record: records,
    Agreement: agreements,
    Deployment: deployments,
    RelocationPlan: plans,
    RelocationReceipt: receipts,
    TransferManifest: manifests,
    Registration: registrations,
    Search: searches,
    SearchResult: st.builds(SearchResult, registrations=st.lists(registrations, max_size=3).map(tuple)),
    Request: requests,
    Problem: problems,
}
"""A strategy for every document."""
