"""A proof holds when every signature and every link does; whatever is missing, exchanged or late, it says so first."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agency.problems import AgencyError
from agency.store.credentials import Cipher, EncryptedCredentials
from agency.store.store import Store
from agency.trust import proof
from agency.trust.keys import TrustedKeys
from agency.trust.proof import Proof
from agency.trust.signing import Verifier
from agency.trust.site import Site, add_site
from descriptors.base import Document
from descriptors.cfp import CallForProposals
from descriptors.documents import Form, digest, dump
from descriptors.relocation import Item, RelocationPlan, RelocationReceipt, Task
from descriptors.sla import Agreement, Offer
from descriptors.transfer import TransferManifest
from descriptors.trust import Acceptance, Delegation
from tests.agency.trust.parties import BROKER, HERE, NOW, OFFER, OTHER, SOON, THERE, VENDOR, Parties

DEPLOYER, RELOCATOR = f"deployer@{HERE}", f"relocator@{HERE}"
CALL = CallForProposals(
    id=OFFER.call, application="guestbook", purpose="relocation", issued=NOW, reply_by=SOON, resources=OFFER.resources
)
OFFERED = digest(OFFER)
DELEGATION = Delegation(
    id="delegation-1", application="guestbook", delegate=BROKER, per_month=Decimal(80), currency="EUR", issued=NOW,
    until=SOON,
)  # fmt: skip
ACCEPTANCE = Acceptance(
    id="acceptance-1", application="guestbook", call=CALL.id, offer=OFFER.id, offer_digest=OFFERED, accepted=NOW
)
AGREEMENT = Agreement(
    id="agreement-1", application="guestbook", offer=OFFER.id, offer_digest=OFFERED, provider="alpha",
    consumer="deployer", state="observed", agreed=NOW, price=OFFER.price, resources=OFFER.resources,
    allocations=OFFER.allocations,
)  # fmt: skip
PLAN = RelocationPlan(
    id="plan-1", application="guestbook", deployment="deployment-1", revision=1, source="gamma", target="alpha",
    offer=OFFER.id, created=NOW, expires=SOON, bytes=1, seconds=1, downtime_seconds=1, price_before=OFFER.price,
    price_after=OFFER.price, components=("web",),
)  # fmt: skip
RECEIPT = RelocationReceipt(
    id="receipt-plan-1", plan="plan-1", plan_digest=digest(PLAN), application="guestbook", agreement="agreement-1",
    source="gamma", target="alpha", outcome="relocated", started=NOW, finished=NOW, bytes_moved=1, seconds=1,
    downtime_seconds=1,
)  # fmt: skip


@dataclass
class Story:
    """How everything came about: each step can be told otherwise."""

    parties: Parties = field(default_factory=Parties)
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        here, there = self.parties.here, self.parties.there
        self.signers = {jid: self.parties.signer(jid, here) for jid in (BROKER, DEPLOYER, RELOCATOR)}
        self.signers |= {jid: self.parties.signer(jid, there) for jid in (VENDOR, OTHER)}
        self.say("delegation", DEPLOYER, BROKER, DELEGATION, [])
        self.say("offer", VENDOR, BROKER, OFFER, [CALL])
        self.say("acceptance", BROKER, VENDOR, ACCEPTANCE, [OFFER, DELEGATION])
        self.say("agreement", VENDOR, BROKER, AGREEMENT, [ACCEPTANCE])
        self.say("receipt", RELOCATOR, DEPLOYER, RECEIPT, [PLAN, AGREEMENT])

    def say(
        self, name: str, signer: str, audience: str, document: Document, answers: list[Document], after: float = 0,
        lasting: float = 300,
    ) -> None:  # fmt: skip
        """Sign a document in place of the one that went by that name."""
        self.parties.moment = NOW + timedelta(seconds=after)
        self.tokens[name] = self.signers[signer].sign(
            document,
            audience=audience,
            expires=self.parties.moment + timedelta(seconds=lasting),
            answers=[digest(each) for each in answers],
        )

    def proof(self, *documents: Document, without: str = "") -> Proof:
        """The file, with these unsigned documents, or all that there are."""
        plain = tuple(json.loads(dump(each, Form.JSON)) for each in documents or (CALL, PLAN))
        tokens = tuple(token for name, token in self.tokens.items() if name != without)
        return Proof(application="guestbook", documents=plain, tokens=tokens)


def check(given: Proof, parties: Parties) -> list[proof.Link]:
    """What somebody finds who trusts both sites."""
    return proof.verify(given, Verifier(parties.trusted))


def broken(given: Proof, parties: Parties) -> tuple[str, str]:
    """The code and the words with which the proof is refused."""
    with pytest.raises(AgencyError) as caught:
        check(given, parties)
    return caught.value.problem.code, caught.value.problem.message


def test_a_whole_chain_holds() -> None:
    """From the delegation to the receipt all links hold, in an order in which each comes after what it answers."""
    story = Story()
    links = check(story.proof(), story.parties)
    names = [link.document.tag for link in links]
    assert sorted(names) == sorted(
        [
            "call-for-proposals",
            "delegation",
            "offer",
            "acceptance",
            "agreement",
            "relocation-plan",
            "relocation-receipt",
        ]
    )
    for position, link in enumerate(links):
        assert all(answered in links[:position] for answered in link.answers)
    assert {link.signed.issuer for link in links if link.signed} == {DEPLOYER, VENDOR, BROKER, RELOCATOR}


def test_order_in_the_file_does_not_matter() -> None:
    """A proof whose tokens come in another order holds all the same."""
    story = Story()
    given = story.proof()
    check(given.model_copy(update={"tokens": given.tokens[::-1], "documents": given.documents[::-1]}), story.parties)


def test_it_holds_for_ever() -> None:
    """Offers and certificates that have expired since do no harm: what counts is the moment of signing."""
    story = Story()
    assert check(story.proof(), story.parties)  # everything in it expired in November 2026, whenever this runs


@pytest.mark.parametrize("without", ["delegation", "offer", "acceptance", "agreement"])
def test_a_missing_link(without: str) -> None:
    """Where a document is missing that another answers, the other is named."""
    story = Story()
    code, words = broken(story.proof(without=without), story.parties)
    assert (code, "answers a document that is not there" in words) == ("missing-link", True)


@pytest.mark.parametrize("present", [[CALL], [PLAN]])
def test_a_missing_unsigned_document(present: list[Document]) -> None:
    """The call and the plan, unsigned as they are, cannot be left out either."""
    story = Story()
    assert broken(story.proof(*present), story.parties)[0] == "missing-link"


def _cheap(document: Any) -> Any:
    price = document.price.model_copy(update={"per_month": Decimal(1)})
    return document.model_copy(update={"price": price})


BREAKS: dict[str, tuple[str, str, Callable[[Story], None]]] = {
    "acceptance by another agent": (
        "broken-link", "not signed by whom the offer was made to",
        lambda s: s.say("acceptance", RELOCATOR, VENDOR, ACCEPTANCE, [OFFER, DELEGATION]),
    ),
    "acceptance for another vendor": (
        "broken-link", "not addressed to whom the offer is from",
        lambda s: s.say("acceptance", BROKER, OTHER, ACCEPTANCE, [OFFER, DELEGATION]),
    ),
    "acceptance of a cheaper offer": (
        "broken-link", "of another offer",
        lambda s: _again(s, ACCEPTANCE.model_copy(update={"offer_digest": digest(_cheap(OFFER))})),
    ),
    "acceptance after the offer had expired": (
        "expired", "offer offer-1 had expired",
        lambda s: s.say("acceptance", BROKER, VENDOR, ACCEPTANCE, [OFFER, DELEGATION], after=331),
    ),
    "acceptance before the offer": (
        "broken-link", "was signed before the offer",
        lambda s: s.say("offer", VENDOR, BROKER, OFFER, [CALL], after=31),
    ),
    "acceptance of nothing": (
        "missing-link", "answers no offer",
        lambda s: s.say("acceptance", BROKER, VENDOR, ACCEPTANCE, [DELEGATION]),
    ),
    "more than was delegated": (
        "broken-link", "costs more than was delegated",
        lambda s: _delegated(s, per_month=Decimal("72.99")),
    ),
    "another currency than was delegated": (
        "broken-link", "another currency", lambda s: _delegated(s, currency="USD"),
    ),
    "a delegation of another": (
        "broken-link", "another than the delegate", lambda s: _delegated(s, to=RELOCATOR, delegate=RELOCATOR),
    ),
    "a delegation for another than it is sent to": (
        "broken-link", "for another than its delegate", lambda s: _delegated(s, to=RELOCATOR),
    ),
    "a delegation that has ended": (
        "expired", "delegation delegation-1 had expired", lambda s: _delegated(s, until=NOW - timedelta(seconds=31)),
    ),
    "agreement by another vendor": (
        "broken-link", "not signed by whom the offer is from",
        lambda s: s.say("agreement", OTHER, BROKER, AGREEMENT, [ACCEPTANCE]),
    ),
    "agreement for somebody else": (
        "broken-link", "not addressed to who accepted",
        lambda s: s.say("agreement", VENDOR, DEPLOYER, AGREEMENT, [ACCEPTANCE]),
    ),
    "agreement at another price": (
        "broken-link", "differs from its offer", lambda s: _agreed(s, _cheap(AGREEMENT)),
    ),
    "agreement about another offer": (
        "broken-link", "about another offer",
        lambda s: _agreed(s, AGREEMENT.model_copy(update={"offer_digest": "blake3:" + "0" * 64})),
    ),
    "agreement too late": (
        "expired", "acceptance acceptance-1 had expired",
        lambda s: s.say("agreement", VENDOR, BROKER, AGREEMENT, [ACCEPTANCE], after=331),
    ),
    "agreement without acceptance": (
        "missing-link", "answers no acceptance", lambda s: s.say("agreement", VENDOR, BROKER, AGREEMENT, []),
    ),
    "receipt of another plan": (
        "broken-link", "of another plan",
        lambda s: _received(s, RECEIPT.model_copy(update={"plan_digest": "blake3:" + "0" * 64})),
    ),
    "receipt under another agreement": (
        "broken-link", "names another agreement",
        lambda s: _received(s, RECEIPT.model_copy(update={"agreement": "agreement-2"})),
    ),
    "receipt before the end": (
        "broken-link", "before what it tells of had ended",
        lambda s: _received(s, RECEIPT.model_copy(update={"finished": NOW + timedelta(seconds=31)})),
    ),
    "another application": (
        "broken-link", "of another application",
        lambda s: _received(s, RECEIPT.model_copy(update={"application": "other"})),
    ),
    "an offer to another call": (
        "missing-link", "does not answer its call", lambda s: s.say("offer", VENDOR, BROKER, OFFER, [PLAN]),
    ),
    "a stray offer": (
        "stray-link", "has nothing to do with",
        lambda s: s.say("second", OTHER, BROKER, OFFER.model_copy(update={"id": "offer-2"}), [CALL]),
    ),
    "a certificate that had ended": (
        "expired", "certificate was not valid", lambda s: _signed_late(s),
    ),
}  # fmt: skip


def _again(story: Story, acceptance: Acceptance) -> None:
    story.say("acceptance", BROKER, VENDOR, acceptance, [OFFER, DELEGATION])
    story.say("agreement", VENDOR, BROKER, AGREEMENT, [acceptance])


def _agreed(story: Story, agreement: Agreement) -> None:
    story.say("agreement", VENDOR, BROKER, agreement, [ACCEPTANCE])
    story.say("receipt", RELOCATOR, DEPLOYER, RECEIPT, [PLAN, agreement])


def _received(story: Story, receipt: RelocationReceipt) -> None:
    story.say("receipt", RELOCATOR, DEPLOYER, receipt, [PLAN, AGREEMENT])


def _delegated(story: Story, to: str = BROKER, **changes: Any) -> None:
    other = DELEGATION.model_copy(update=changes)
    story.say("delegation", DEPLOYER, to, other, [])
    story.say("acceptance", BROKER, VENDOR, ACCEPTANCE, [OFFER, other])


def _signed_late(story: Story) -> None:
    """The vendor's first key signs after its certificate has ended."""
    signer = story.signers[VENDOR]
    assert signer._identity is not None
    object.__setattr__(signer._identity, "renew", NOW + timedelta(days=99))
    story.say("agreement", VENDOR, BROKER, AGREEMENT, [ACCEPTANCE], after=timedelta(days=8).total_seconds())


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_link(kind: str) -> None:
    """Each way to break the chain, though every signature is good, is found and named."""
    code, words, tell = BREAKS[kind]
    story = Story()
    tell(story)
    found = broken(story.proof(), story.parties)
    assert found[0] == code
    assert words in found[1]


def test_unsigned_where_it_must_be_signed() -> None:
    """An agreement that nobody signed is refused, however it came into the file."""
    story = Story()
    code, words = broken(story.proof(CALL, PLAN, AGREEMENT), story.parties)
    assert (code, "is not signed" in words) == ("broken-link", True)


def test_an_altered_token() -> None:
    """A token of which one character differs is refused as what it is."""
    story = Story()
    given = story.proof()
    token = given.tokens[2]
    header, payload, signature = token.split(".")
    middle = len(payload) // 2
    other = payload[:middle] + ("A" if payload[middle] != "A" else "B") + payload[middle + 1 :]
    tokens = (*given.tokens[:2], f"{header}.{other}.{signature}", *given.tokens[3:])
    assert broken(given.model_copy(update={"tokens": tokens}), story.parties)[0] == "altered"


def test_somebody_unknown() -> None:
    """Who does not trust the vendor's site does not believe its offers, and is told of which site to ask."""
    story = Story()
    trusted = TrustedKeys([(HERE, story.parties.here.public)])
    with pytest.raises(AgencyError, match=r"b\.example") as caught:
        proof.verify(story.proof(), Verifier(trusted))
    assert caught.value.problem.code == "unknown-key"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"proof": "2"}', b"\xff", b'{"proof":"1","application":"x","tokens":["a"],"y":1}']
)
def test_no_proof(content: bytes, tmp_path: Path) -> None:
    """A file that is no proof is refused in words that name it."""
    file = tmp_path / "proof.json"
    file.write_bytes(content)
    with pytest.raises(AgencyError, match=r"proof\.json is no proof") as caught:
        proof.read(file)
    assert caught.value.problem.code == "bad-proof"


@pytest.mark.parametrize("document", [{}, {"document": "offer"}, {"document": "delegation", "x": 1}])
def test_bad_documents(document: dict[str, Any]) -> None:
    """What stands for a document and is none is refused."""
    story = Story()
    given = story.proof()
    given = given.model_copy(update={"documents": (*given.documents, document)})
    assert broken(given, story.parties)[0] == "bad-proof"


def test_an_empty_proof() -> None:
    """A proof of nothing is none."""
    assert broken(Proof(application="guestbook", tokens=()), Parties())[0] == "bad-proof"


TASKS = (
    Task(name="fetch-volume-data", migrator="fetch", vendor="gamma", subject="data"),
    Task(name="upload-volume-data", migrator="upload-volume", vendor="alpha", subject="data"),
    Task(name="fetch-machine-web", migrator="fetch", vendor="gamma", subject="web"),
    Task(name="upload-machine-web", migrator="upload-machine", vendor="alpha", subject="web"),
)
MOVED = PLAN.model_copy(update={"tasks": TASKS})
ROOT, ADAPTED = f"blake3:{'1' * 64}", f"blake3:{'2' * 64}"
ITEMS = tuple(
    Item(action="move", kind=kind, name=name, bytes=7, digest=OFFERED, root=ROOT, what="it moves")
    for kind, name in (("volume", "data"), ("machine", "web"))
)


def _manifest(task: Task, **changes: Any) -> TransferManifest:
    """What the site says of one move."""
    sender, receiver = ("gamma", HERE) if task.migrator == "fetch" else (HERE, "alpha")
    root = ADAPTED if task.name == "upload-machine-web" else ROOT
    manifest = TransferManifest(
        id=f"{MOVED.id}/{task.name}", name="data", size=7, root=root, block_size=65536, wire=7, sender=sender,
        receiver=receiver, started=NOW, finished=NOW,
    )  # fmt: skip
    return manifest.model_copy(update=changes)


def _moves(story: Story, tokens: list[str] | None = None, items: tuple[Item, ...] = ITEMS, **changes: Any) -> Proof:
    """The proof of a receipt with these manifests, or those of all moves, the first of them changed."""
    if tokens is None:
        documents = [_manifest(task, **(changes if task is TASKS[0] else {})) for task in TASKS]
        tokens = [_stated(story, each) for each in documents]
    receipt = RECEIPT.model_copy(update={"plan_digest": digest(MOVED), "items": items, "manifests": tuple(tokens)})
    story.say("receipt", RELOCATOR, DEPLOYER, receipt, [MOVED, AGREEMENT])
    return story.proof(CALL, MOVED)


def _stated(story: Story, manifest: Document, site: str = HERE) -> str:
    """Signed by the site."""
    signer = story.parties.signer(f"transfer@{site}", story.parties.here if site == HERE else story.parties.there)
    return signer.sign(manifest, audience="gamma", expires=SOON)


def test_the_manifests_in_a_receipt() -> None:
    """Those of all moves are verified with the receipt, and stand after it."""
    story = Story()
    links = check(_moves(story), story.parties)
    assert [link.document.tag for link in links[-5:]] == ["relocation-receipt", *["transfer-manifest"] * 4]
    assert {link.to_json().get("root") for link in links} == {None, ROOT, ADAPTED}


def _altered(token: str) -> str:
    header, payload, signature = token.split(".")
    return f"{header}.{payload[:-9]}{'A' if payload[-9] != 'A' else 'B'}{payload[-8:]}.{signature}"


FALSE: dict[str, tuple[str, str, Callable[[Story], Proof]]] = {
    "altered": (
        "altered", "cannot be believed",
        lambda s: _moves(s, [_altered(_stated(s, _manifest(TASKS[0]))), _stated(s, _manifest(TASKS[2]))]),
    ),
    "no manifest": ("wrong-document", "cannot be believed", lambda s: _moves(s, [s.tokens["offer"]])),
    "by another site": (
        "broken-link", f"another site, {THERE}, has signed",
        lambda s: _moves(s, [_stated(s, _manifest(each), THERE) for each in TASKS]),
    ),
    "of another plan": ("broken-link", "not in its plan", lambda s: _moves(s, id="plan-2/fetch-volume-data")),
    "of another task": ("broken-link", "not in its plan", lambda s: _moves(s, id="plan-1/fetch-volume-other")),
    "twice": ("broken-link", "or twice", lambda s: _moves(s, [_stated(s, _manifest(TASKS[0])) for _ in range(2)])),
    "missing": ("broken-link", "no manifest of volume data", lambda s: _moves(s, [_stated(s, _manifest(TASKS[2]))])),
    "from another": ("broken-link", "between others", lambda s: _moves(s, sender="beta")),
    "to another": ("broken-link", "between others", lambda s: _moves(s, receiver=THERE)),
    "of another size": ("broken-link", "size or root differs", lambda s: _moves(s, size=8)),
    "of another root": ("broken-link", "size or root differs", lambda s: _moves(s, root=ADAPTED)),
    "of a volume that changed on its way": (
        "broken-link", "other content than volume data",
        lambda s: _moves(
            s, [_stated(s, _manifest(t, **({"root": ADAPTED} if t is TASKS[1] else {}))) for t in TASKS]
        ),
    ),
    "of an item that tells no root": (
        "broken-link", "size or root differs",
        lambda s: _moves(s, items=tuple(each.model_copy(update={"root": None}) for each in ITEMS)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FALSE)
def test_a_false_manifest_in_a_receipt(kind: str) -> None:
    """A manifest that is altered, another's, or of something else, is found, though the receipt with it is signed."""
    code, words, tell = FALSE[kind]
    story = Story()
    found = broken(tell(story), story.parties)
    assert found[0] == code
    assert words in found[1]


async def test_collecting(tmp_path: Path) -> None:
    """What is kept of an application comes out as a proof that holds, without the offers that nothing came of."""
    story = Story()
    story.say("loser", OTHER, BROKER, OFFER.model_copy(update={"id": "offer-2", "vendor": "beta"}), [CALL])
    async with Store.open(f"sqlite:///{tmp_path}/agency.db") as store:
        site = await _site(store, story)
        with pytest.raises(AgencyError) as caught:
            await proof.collect(store, "guestbook")
        assert caught.value.problem.code == "nothing-to-prove"
        for token in story.tokens.values():
            signed = site.verifier.read(token, *proof.SIGNED)
            await site.keep(signed, application="guestbook", conversation=OFFER.call)
        with pytest.raises(AgencyError) as caught:
            await proof.collect(store, "guestbook")
        assert caught.value.problem.code == "incomplete"
        for document in (CALL, PLAN):
            await store.put(document, id=document.id, application="guestbook")
        collected = await proof.collect(store, "guestbook")
        file = tmp_path / "proof.json"
        file.write_text(proof.write(collected))
        links = proof.verify(proof.read(file), site.verifier)
    assert len(links) == 7
    assert {link.document.id for link in links if isinstance(link.document, Offer)} == {OFFER.id}


async def _site(store: Store, story: Story) -> Site:
    """A third site that keeps what the two said, whom it trusts."""
    site = await Site.open(store, EncryptedCredentials(store, Cipher(bytes(32))), "c.example")
    for key in (story.parties.here, story.parties.there):
        await add_site(store, key.name, key.public)
    await site.refresh()
    return site
