"""Proofs: what an application's agreements and receipts rest on, to be checked by anybody, without the agency.

A proof is a JSON file: the signed documents as tokens, and the unsigned ones that they answer. In it each document
names by digest those that it answers, so that none can be exchanged, and none is missing::

    delegation ─┐
    call ─ offer ┴ acceptance ─ agreement ─┐
                          relocation plan ─┴ receipt

In a receipt are the signed manifests of what was moved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select

from agency.problems import AgencyError, refuse
from agency.store.models import DocumentRow, TokenRow
from agency.store.store import Store
from agency.trust.claims import answers_of
from agency.trust.signing import SKEW, Signed, Untrusted, Verifier
from descriptors.base import Document
from descriptors.cfp import CallForProposals
from descriptors.documents import Form, digest, load
from descriptors.relocation import Item, RelocationPlan, RelocationReceipt
from descriptors.sla import Agreement, CounterOffer, Offer, ends
from descriptors.transfer import TransferManifest
from descriptors.trust import Acceptance, Delegation

D = TypeVar("D", bound=Document)

MAX_BYTES = 64 * 1024 * 1024
SIGNED: tuple[type[Document], ...] = (Delegation, Offer, Acceptance, Agreement, RelocationReceipt)
"""Documents that count in a proof only when they are signed."""
UNSIGNED: tuple[type[Document], ...] = (CallForProposals, CounterOffer, RelocationPlan)
"""Documents that are not signed: what answers them is, and names them by digest."""
_DEEPEST = 8
"""Documents in a row, each of which answers the next."""
_ENDS = (Agreement.tag, RelocationReceipt.tag)
"""What a proof is about; everything else in it is there because one of these rests on it."""


class Proof(BaseModel):
    """What is in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    proof: Literal["1"] = "1"
    application: str
    documents: tuple[dict[str, Any], ...] = ()
    """Unsigned documents, in their JSON form."""
    tokens: tuple[str, ...]
    """Signed documents."""


@dataclass(frozen=True)
class Link:
    """One document of a chain that holds."""

    digest: str
    document: Document
    signed: Signed[Document] | None
    answers: tuple[Link, ...]

    @property
    def name(self) -> str:
        """Its kind and id, for people."""
        return f"{self.document.tag} {getattr(self.document, 'id', '')}"

    @property
    def proven(self) -> Signed[Document]:
        """The proof of a document that must be signed; those that are not were refused before they became links."""
        assert self.signed is not None  # noqa: S101
        return self.signed

    def to_json(self) -> dict[str, Any]:
        """What there is to see of it."""
        signed, moved = self.signed, dict[str, Any]()
        if isinstance(self.document, TransferManifest):
            moved = self.document.model_dump(mode="json", include={"size", "root", "sender", "receiver"})
        return {
            "document": self.document.tag,
            "id": getattr(self.document, "id", ""),
            "digest": self.digest,
            "signer": signed and signed.issuer,
            "signed": signed and signed.issued.isoformat(),
            "answers": [each.digest for each in self.answers],
            **moved,
        }

    def find(self, kind: type[D]) -> tuple[tuple[Link, D], ...]:
        """Of what it answers, the documents of that kind."""
        return tuple((each, each.document) for each in self.answers if isinstance(each.document, kind))


# --- making one ---


async def collect(store: Store, application: str) -> Proof:
    """The proof of all agreements and receipts of an application. Refused where there is none, and where something is
    missing that one of them answers."""
    async with store.transaction() as session:
        query = select(TokenRow).where(TokenRow.application == application).order_by(TokenRow.id)
        tokens = {row.digest: row.token for row in (await session.scalars(query)).all()}
        ends = (await session.scalars(query.where(TokenRow.tag.in_(_ENDS)))).all()
        if not ends:
            raise refuse(
                "nothing-to-prove",
                f"nothing that was signed for {application!r} is kept: no agreement, no receipt",
                "see `agency status` for the applications there are, and accept an offer first",
            )
        wanted, found, documents = [row.digest for row in ends], dict[str, str](), list[dict[str, Any]]()
        while wanted:
            name = wanted.pop()
            if name in found:
                continue
            found[name] = tokens.get(name, "")
            if found[name]:
                wanted += answers_of(found[name])
            else:
                body = await session.scalar(select(DocumentRow.body).where(DocumentRow.digest == name))
                if body is None:
                    raise refuse(
                        "incomplete", f"a document is not kept that another answers: {name}", "restore it from a backup"
                    )
                documents.append(json.loads(body))
    return Proof(application=application, documents=tuple(documents), tokens=tuple(filter(None, found.values())))


def write(proof: Proof) -> str:
    """The text of the file."""
    return proof.model_dump_json(indent=2) + "\n"


# --- checking one ---


def read(file: Path) -> Proof | str:
    """The proof in the file, or the token of a transfer's manifest; refused (``bad-proof``) where there is neither."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        if re.fullmatch(rb"[A-Za-z0-9_.-]+\s*", raw):
            return raw.decode().strip()
        return Proof.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _bad(f"{file} is no proof: {where + ': ' if where else ''}{first['msg']}") from None
    except ValueError as error:
        raise _bad(f"{file} is no proof: {error}") from None


def _bad(message: str) -> AgencyError:
    return refuse(
        "bad-proof",
        message,
        "give a file that `agency proof APP -o FILE` wrote, or `agency transfer push --manifest FILE`",
    )


def verify_manifest(token: str, verifier: Verifier) -> Link:
    """The manifest of a transfer, which rests on nothing else."""
    signed: Signed[Document] = verifier.read(token, TransferManifest)
    return Link(signed.digest, signed.document, signed, ())


def verify(proof: Proof, verifier: Verifier) -> list[Link]:
    """The links of the chain, each after those that it answers, and after a receipt the manifests of the transfers in
    it, when all hold; else the first that does not, as an :class:`~agency.problems.AgencyError` that says which and
    why."""
    documents = [_unsigned(plain) for plain in proof.documents]
    signed = [verifier.read(token, *SIGNED) for token in proof.tokens]
    entries: dict[str, tuple[Document, Signed[Document] | None]] = {digest(each): (each, None) for each in documents}
    for each in sorted(signed, key=lambda each: each.issued):
        if each.digest in entries and (known := entries[each.digest][1]) and known.issuer != each.issuer:
            raise _broken(each.document, f"is signed by {known.issuer} and by {each.issuer}")
        entries.setdefault(each.digest, (each.document, each))
    links = _linked(entries)
    for link in links:
        if getattr(link.document, "application", None) != proof.application:
            raise _broken(link.document, f"is of another application than {proof.application}")
        _CHECKS[type(link.document)](link)
    _check_all_used(links)
    return [each for link in links for each in (link, *_manifests(link, verifier))]


def _unsigned(plain: dict[str, Any]) -> Document:
    try:
        document = load(json.dumps(plain), form=Form.JSON, name="a document of the proof")
    except ValueError as error:  # DocumentError is one
        raise _bad(str(error)[:1000]) from None
    if not isinstance(document, UNSIGNED):
        raise _broken(document, "is not signed")
    return document


def _linked(entries: Mapping[str, tuple[Document, Signed[Document] | None]]) -> list[Link]:
    """The documents in an order in which each comes after those that it answers."""
    links: dict[str, Link] = {}

    def link(name: str, path: tuple[Document, ...]) -> Link:
        if name in links:
            return links[name]
        if name not in entries:
            raise _broken(path[-1], f"answers a document that is not there: {name}", code="missing-link")
        document, signed = entries[name]
        if len(path) == _DEEPEST:
            raise _broken(document, "is answered by more documents in a row than there can be")
        answers = tuple(link(each, (*path, document)) for each in (signed.answers if signed else ()))
        links[name] = Link(name, document, signed, answers)
        return links[name]

    for name in entries:  # a digest cannot name what names it, so this ends
        link(name, ())
    return list(links.values())


def _check_all_used(links: list[Link]) -> None:
    """Refuse what nothing rests on: it would look proven, and is not."""
    used = {each.digest for link in links for each in link.answers}
    for link in links:
        if link.digest not in used and link.document.tag not in _ENDS:
            raise _broken(link.document, "has nothing to do with the agreements and receipts", code="stray-link")
    if not links:
        raise _bad("the proof is empty")


def _check_offer(link: Link) -> None:
    offer, signed = _as(link, Offer)
    calls = [call.id for _, call in link.find(CallForProposals)]
    counters = [counter for _, counter in link.find(CounterOffer) if counter.vendor == offer.vendor]
    if {*calls, *(counter.call for counter in counters)} != {offer.call}:
        raise _broken(offer, f"does not answer its call, {offer.call}, or a counter-offer in it", code="missing-link")
    _require(offer, signed.issued <= offer.expires, "had expired when it was signed")


def _check_delegation(link: Link) -> None:
    delegation, signed = _as(link, Delegation)
    _require(delegation, signed.audience == delegation.delegate, "was signed for another than its delegate")


def _check_acceptance(link: Link) -> None:
    acceptance, signed = _as(link, Acceptance)
    (offer_link, offer) = _one(link, Offer)
    offered = offer_link.proven
    _require(acceptance, acceptance.offer_digest == offer_link.digest, "is of another offer")
    _require(acceptance, (acceptance.offer, acceptance.call) == (offer.id, offer.call), "names another offer or call")
    _require(acceptance, signed.issuer == offered.audience, "was not signed by whom the offer was made to")
    _require(acceptance, signed.audience == offered.issuer, "is not addressed to whom the offer is from")
    _in_time(link, offer_link, until=min(offered.expires, offer.expires))
    for delegated, delegation in link.find(Delegation):
        _require(acceptance, delegation.delegate == signed.issuer, "was signed by another than the delegate")
        _require(acceptance, delegation.currency == offer.price.currency, "is in another currency than was delegated")
        _require(acceptance, offer.price.per_month <= delegation.per_month, "costs more than was delegated")
        _in_time(link, delegated, until=delegation.until)


def _check_agreement(link: Link) -> None:
    agreement, signed = _as(link, Agreement)
    (accepted_link, acceptance) = _one(link, Acceptance)
    (offer_link, offer) = _one(accepted_link, Offer)
    accepted, offered = accepted_link.proven, offer_link.proven
    _require(agreement, agreement.offer_digest == acceptance.offer_digest, "is about another offer")
    _require(agreement, agreement.offer == offer.id and agreement.provider == offer.vendor, "names another offer")
    _require(agreement, signed.issuer == offered.issuer, "was not signed by whom the offer is from")
    _require(agreement, signed.audience == accepted.issuer, "is not addressed to who accepted")
    agreed = (agreement.price, agreement.allocations, agreement.guarantees, agreement.move, agreement.components)
    offered_terms = (offer.price, offer.allocations, offer.guarantees, offer.move, offer.components)
    _require(agreement, agreed == offered_terms, "differs from its offer")
    _require(agreement, agreement.supersedes == offer.supersedes, "replaces another agreement than its offer says")
    _require(agreement, agreement.expires == ends(agreement.agreed, offer.price), "ends at another time than offered")
    _in_time(link, accepted_link, until=accepted.expires)


def _check_receipt(link: Link) -> None:
    receipt, signed = _as(link, RelocationReceipt)
    (plan_link, plan) = _one(link, RelocationPlan)
    (agreement_link, agreement) = _one(link, Agreement)
    _require(receipt, (receipt.plan, receipt.plan_digest) == (plan.id, plan_link.digest), "is of another plan")
    _require(receipt, plan.offer == agreement.offer, "is of a plan for another offer than was agreed")
    _require(receipt, receipt.agreement in (None, agreement.id), "names another agreement")
    _require(receipt, signed.issued + SKEW >= receipt.finished, "was signed before what it tells of had ended")
    _in_time(link, agreement_link, until=None)


def _manifests(link: Link, verifier: Verifier) -> list[Link]:
    """The manifests of transfers that a receipt has, when all are of the moves that it tells of, by its own site."""
    receipt, found = link.document, dict[str, Link]()
    if not isinstance(receipt, RelocationReceipt):
        return []
    (_, plan) = _one(link, RelocationPlan)
    tasks = {f"{plan.id}/{task.name}": task for task in plan.tasks}
    site = link.proven.site
    for token in receipt.manifests:
        try:
            each = verify_manifest(token, verifier)
        except Untrusted as error:
            raise _broken(receipt, f"has a manifest that cannot be believed: {error}", error.code) from None
        manifest, task = _moved(each), tasks.get(_moved(each).id)
        _require(receipt, each.proven.site == site, f"has a manifest that another site, {each.proven.site}, has signed")
        if task is None or manifest.id in found:
            raise _broken(receipt, f"has a manifest of a move that is not in its plan, or twice: {manifest.id}")
        between = (task.vendor, site) if task.migrator == "fetch" else (site, task.vendor)
        if (manifest.sender, manifest.receiver) != between:
            raise _broken(receipt, f"has a manifest of a move between others than in its plan: {manifest.id}")
        found[manifest.id] = each
    for item in receipt.items:
        _check_item(receipt, item, found)
    return list(found.values())


def _check_item(receipt: RelocationReceipt, item: Item, found: Mapping[str, Link]) -> None:
    """What came from the source is the item, and a volume goes to the target as it came."""
    for way in ("fetch", "upload") if item.kind == "volume" and item.root else ("fetch",):
        each = found.get(f"{receipt.plan}/{way}-{item.kind}-{item.name}")
        if each is None:
            _require(receipt, way == "upload" or not item.root, f"has no manifest of {item.kind} {item.name}")
        elif (_moved(each).size, _moved(each).root) != (item.bytes, item.root):
            raise _broken(
                receipt, f"has a manifest of other content than {item.kind} {item.name}: size or root differs"
            )


def _moved(link: Link) -> TransferManifest:
    assert isinstance(link.document, TransferManifest)  # noqa: S101 - it was read as one
    return link.document


_CHECKS: dict[type[Document], Callable[[Link], None]] = {
    Delegation: _check_delegation,
    Offer: _check_offer,
    Acceptance: _check_acceptance,
    Agreement: _check_agreement,
    RelocationReceipt: _check_receipt,
    **dict.fromkeys(UNSIGNED, lambda _: None),
}


def _as(link: Link, kind: type[D]) -> tuple[D, Signed[Document]]:
    assert isinstance(link.document, kind)  # noqa: S101 - it is checked by its type
    return link.document, link.proven


def _one(link: Link, kind: type[D]) -> tuple[Link, D]:
    found = link.find(kind)
    if len(found) != 1:
        raise _broken(link.document, f"answers {len(found) or 'no'} {kind.tag}, where it must be one", "missing-link")
    return found[0]


def _require(document: Document, holds: bool, otherwise: str) -> None:
    if not holds:
        raise _broken(document, otherwise)


def _in_time(link: Link, answered: Link, until: datetime | None) -> None:
    """Signed after what it answers, and before that had expired; clocks may differ a little."""
    signed, other = link.proven, answered.proven
    _require(link.document, signed.issued + SKEW >= other.issued, f"was signed before the {answered.name}")
    if until is not None and signed.issued > until + SKEW:
        raise _broken(link.document, f"was signed when the {answered.name} had expired", "expired")


def _broken(document: Document, why: str, code: str = "broken-link") -> AgencyError:
    name = f"{document.tag} {getattr(document, 'id', '')}".strip()
    return refuse(code, f"the {name} {why}", "do not rely on this proof; ask for another from whom you have it")
