"""What an agent signed is believed just as it was signed; everything else is refused with its code, and logged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws as reference
from joserfc.jwk import OKPKey

from agency.trust import jws, keys
from agency.trust.keys import SiteKey
from agency.trust.replays import Replays
from agency.trust.signing import MAX_LIFETIME, SKEW, Signer, Untrusted, Verifier
from descriptors.documents import canonical, digest
from descriptors.sla import Agreement, Offer
from tests.agency.trust.parties import (
    BROKER,
    CALLS_DIGEST,
    HERE,
    NOW,
    OFFER,
    OTHER,
    SOON,
    THERE,
    VENDOR,
    Parties,
)
from tests.descriptors.strategies import offers

REGISTRY = reference.JWSRegistry(algorithms=["Ed25519"], strict_check_header=False)
REGISTRY.max_header_length = 4096


@pytest.fixture
def parties() -> Parties:
    """Two sites that know each other."""
    return Parties()


def refused(parties: Parties, token: str, **changes: Any) -> str:
    """The code with which the broker refuses the token; its log must say so, and nothing of the token."""
    with structlog.testing.capture_logs() as logs, pytest.raises(Untrusted) as caught:
        parties.take(token, **changes)
    (entry,) = logs
    assert (entry["agent"], entry["code"]) == (changes.get("audience", BROKER), caught.value.code)
    signature = token.rpartition(".")[2]
    assert len(signature) < 80 or signature not in repr(entry)
    return caught.value.code


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _header(token: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "===")))


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _token(header: dict[str, Any], payload: bytes, key: OKPKey) -> str:
    """A token that the key signs, whatever is in it."""
    signed = f"{_b64(_compact(header))}.{_b64(payload)}"
    secret = key.get_op_key("sign")
    assert isinstance(secret, Ed25519PrivateKey)
    return f"{signed}.{_b64(secret.sign(signed.encode()))}"


def _resigned(parties: Parties, header: dict[str, Any], payload: bytes = canonical(OFFER)) -> str:
    """A token that the vendor's own key signs, whatever is in it."""
    parties.offer()  # makes the key
    assert parties.vendor._identity is not None
    return _token(header, payload, parties.vendor._identity.key)


# --- what is good ---


def test_what_was_signed_is_believed(parties: Parties) -> None:
    """The document comes out equal, with who signed it, for whom, when, and what it answers."""
    signed = parties.take(parties.offer())
    assert (signed.document, signed.digest) == (OFFER, digest(OFFER))
    assert (signed.issuer, signed.site, signed.audience) == (VENDOR, THERE, BROKER)
    assert (signed.issued, signed.expires, signed.answers) == (NOW, SOON, (CALLS_DIGEST,))
    assert not signed.repeated


@given(offer=offers)
@settings(max_examples=30)
def test_any_document_survives(offer: Offer) -> None:
    """Whatever is in a document, it is believed as it was signed, large ones too."""
    parties = Parties()
    assert parties.take(parties.offer(offer)).document == offer


def test_tokens_are_jose(parties: Parties) -> None:
    """Any JOSE library verifies our tokens and certificates with the keys that they name by RFC 7638's thumbprint."""
    token = parties.offer()
    header = _header(token)
    certificate = header["crt"]
    site_key = keys.from_public_text(parties.there.public)
    claims = json.loads(reference.deserialize_compact(certificate, site_key, registry=REGISTRY).payload)
    agents_key = OKPKey.import_key(claims["jwk"])
    assert reference.deserialize_compact(token, agents_key, registry=REGISTRY).payload == canonical(OFFER)
    assert (header["kid"], header["typ"], claims["sub"]) == (agents_key.thumbprint(), "offer", VENDOR)
    assert _header(certificate)["kid"] == site_key.thumbprint()


def test_secrets_are_in_no_repr(parties: Parties) -> None:
    """Neither a key nor a signature shows in what a log or a traceback would print."""
    signed = parties.take(parties.offer())
    shown = repr([signed, parties.vendor, parties.there, parties.verifier])
    secret = parties.there.secret()
    assert secret not in shown
    assert base64.urlsafe_b64decode(secret)[:32].hex() not in shown
    assert signed.token.rpartition(".")[2] not in shown


def test_certificates_are_renewed(parties: Parties) -> None:
    """An agent that runs for long goes on being believed, with a new key long before its certificate ends."""
    first = _header(parties.offer())["kid"]
    parties.moment = NOW + keys.LIFETIME * 0.6
    later = parties.offer(expires=parties.moment + timedelta(minutes=5))
    assert _header(later)["kid"] != first
    assert parties.take(later).issuer == VENDOR


# --- what is not ---


def _none(parties: Parties, token: str) -> str:
    header = {**_header(token), "alg": "none"}
    return f"{_b64(json.dumps(header, separators=(',', ':')).encode())}.{token.split('.')[1]}."


def _symmetric(parties: Parties, token: str) -> str:
    """The public key, taken for the secret of an HMAC."""
    header = _b64(json.dumps({**_header(token), "alg": "HS256"}, separators=(",", ":")).encode())
    signed = f"{header}.{token.split('.')[1]}"
    parties.offer()
    assert parties.vendor._identity is not None
    public = base64.urlsafe_b64decode(str(parties.vendor._identity.key.as_dict(private=False)["x"]) + "=")
    return f"{signed}.{_b64(hmac.digest(public, signed.encode(), hashlib.sha256))}"


def _with(**changes: Any) -> Callable[[Parties, str], str]:
    return lambda parties, token: _resigned(parties, {**_header(token), **changes})


def _without(name: str) -> Callable[[Parties, str], str]:
    return lambda parties, token: _resigned(parties, {k: v for k, v in _header(token).items() if k != name})


def _payload(change: Callable[[bytes], bytes]) -> Callable[[Parties, str], str]:
    return lambda parties, token: _resigned(parties, _header(token), change(canonical(OFFER)))


def _unsigned(change: Callable[[list[str]], list[str]]) -> Callable[[Parties, str], str]:
    return lambda parties, token: ".".join(change(token.split(".")))


def _cheaper(parts: list[str]) -> list[str]:
    payload = base64.urlsafe_b64decode(parts[1] + "===").replace(b"73", b"37")
    return [parts[0], _b64(payload), parts[2]]


def _own_key_in_header(parties: Parties, token: str) -> str:
    """A stranger's key, embedded in the header, where RFC 7515 has a place for it."""
    stranger = keys.new_key()
    header = {**_header(token), "jwk": stranger.as_dict(private=False)}
    return _token(header, canonical(OFFER), stranger)


def _signed_by_stranger(parties: Parties, token: str) -> str:
    return _token(_header(token), canonical(OFFER), keys.new_key())


def _stolen_certificate(parties: Parties, token: str) -> str:
    """Another agent of the same site shows the vendor's certificate with its own key."""
    other = parties.signer(OTHER, parties.there)
    own = _header(other.sign(OFFER, audience=BROKER, expires=SOON))
    assert other._identity is not None
    header = {**_header(token), "kid": own["kid"]}
    return _token(header, canonical(OFFER), other._identity.key)


def _by(jid: str, site: Callable[[Parties], SiteKey]) -> Callable[[Parties, str], str]:
    return lambda parties, _: parties.signer(jid, site(parties)).sign(OFFER, audience=BROKER, expires=SOON)


def _foreign_agent(parties: Parties, token: str) -> str:
    """A trusted site certifies an agent of ours."""
    key = keys.new_key()
    claims = {
        "exp": int(SOON.timestamp()), "iat": int(NOW.timestamp()), "jwk": key.as_dict(private=False),
        "site": THERE, "sub": BROKER,
    }  # fmt: skip
    claims["jwk"] = {part: claims["jwk"][part] for part in ("crv", "kty", "x")}  # type: ignore[index]
    certificate = jws.sign({"kid": parties.there.kid, "typ": keys.CERTIFICATE}, _compact(claims), parties.there._key)
    header = {**_header(token), "iss": BROKER, "kid": key.thumbprint(), "crt": certificate}
    return _token(header, canonical(OFFER), key)


def _weak_key(parties: Parties, token: str) -> str:
    """A site certifies the point of order 1 as its agent's key: to it, one signature fits every document."""
    x = _b64(b"\x01" + bytes(31))
    claims = {
        "exp": int(SOON.timestamp()), "iat": int(NOW.timestamp()),
        "jwk": {"crv": "Ed25519", "kty": "OKP", "x": x}, "site": THERE, "sub": VENDOR,
    }  # fmt: skip
    certificate = jws.sign({"kid": parties.there.kid, "typ": keys.CERTIFICATE}, _compact(claims), parties.there._key)
    kid = OKPKey.import_key(claims["jwk"]).thumbprint()  # type: ignore[arg-type]
    header = _b64(_compact({**_header(token), "kid": kid, "crt": certificate}))
    return f"{header}.{token.split('.')[1]}.{_b64(bytes([1]) + bytes(63))}"


CORPUS: dict[str, tuple[str, Callable[[Parties, str], str]]] = {
    # forged
    "no signature, alg none": ("malformed", _none),
    "HMAC with the public key": ("malformed", _symmetric),
    "alg EdDSA, for any curve": ("malformed", lambda p, t: _unsigned(lambda parts: [_b64(_compact({**_header(t), "alg": "EdDSA"})), *parts[1:]])(p, t)),  # noqa: E501
    "key in the header": ("malformed", _own_key_in_header),
    "crit": ("malformed", _with(crit=["exp"])),
    "payload not encoded": ("malformed", _with(b64=True)),
    "signed by a stranger": ("altered", _signed_by_stranger),
    "another's certificate": ("forged", _stolen_certificate),
    "an agent of an unknown site": ("unknown-key", _by("vendor-x@c.example", lambda _: SiteKey.generate("c.example"))),
    "a site that only has the name": ("unknown-key", _by(VENDOR, lambda _: SiteKey.generate(THERE))),
    "a site that certifies another's agents": ("forged", _foreign_agent),
    "a key of small order": ("malformed", _weak_key),
    "issuer changed": ("forged", _with(iss=OTHER)),
    "kid of another key": ("forged", _with(kid="A" * 43)),
    # altered
    "price lowered": ("altered", _unsigned(_cheaper)),
    "signature cut": ("malformed", _unsigned(lambda parts: [*parts[:2], parts[2][:-1]])),
    "signature of zeros": ("altered", _unsigned(lambda parts: [*parts[:2], "A" * 86])),
    "signature of another token": ("altered", lambda p, t: ".".join([*t.split(".")[:2], p.offer().split(".")[2]])),
    "header of another token": ("altered", lambda p, t: ".".join([p.offer().split(".")[0], *t.split(".")[1:]])),
    # signed so by its signer, and still no good
    "white space in the payload": ("malformed", _payload(lambda raw: raw.replace(b":", b": ", 1))),
    "keys in another order": ("malformed", _payload(lambda raw: json.dumps(dict(reversed(json.loads(raw).items())), separators=(",", ":")).encode())),  # noqa: E501
    "a price with another scale": ("malformed", _payload(lambda raw: raw.replace(b'"0.10"', b"0.1"))),
    "a default written out": ("malformed", _payload(lambda raw: raw.replace(b'"guarantees"', b'"guarantees":[],"x"', 1) if b"guarantees" in raw else raw[:-1] + b',"zz":1}')),  # noqa: E501
    "a key twice": ("malformed", _payload(lambda raw: raw[:-1] + b',"version":"1"}')),
    "XML": ("malformed", _payload(lambda raw: b"<offer/>")),
    "no payload": ("malformed", _payload(lambda raw: b"")),
    "another document": ("wrong-document", _with(typ="agreement")),
    "not what its typ says": ("malformed", _payload(lambda raw: raw.replace(b'"document":"offer"', b'"document":"refusal"'))),  # noqa: E501
    "lives too long": ("malformed", _with(exp=int((NOW + MAX_LIFETIME).timestamp()) + 1)),
    "ends before it begins": ("malformed", _with(exp=int(NOW.timestamp()) - 1)),
    "a moment that is no number": ("malformed", _with(exp="tomorrow")),
    "a moment that is true": ("malformed", _with(iat=True)),
    "a moment beyond all": ("malformed", _with(iat=10**400, exp=10**400)),
    "no nonce": ("malformed", _with(jti="")),
    "a nonce too long": ("malformed", _with(jti="x" * 65)),
    "answers too much": ("malformed", _with(prev=[CALLS_DIGEST] * 17)),
    "answers no digest": ("malformed", _with(prev=[1])),
    "a parameter too many": ("malformed", _with(note="x")),
    "a header too long": ("malformed", _with(jti="x" * 9000)),
    "certificate of garbage": ("malformed", _with(crt="x")),
    "the certificate is an offer": ("malformed", lambda p, t: _resigned(p, {**_header(t), "crt": t})),
    **{f"without {name}": ("malformed", _without(name)) for name in
       ("aud", "crt", "exp", "iat", "iss", "jti", "kid", "prev", "typ")},
    # no token at all
    "empty": ("malformed", lambda p, t: ""),
    "two parts": ("malformed", lambda p, t: t.rpartition(".")[0]),
    "four parts": ("malformed", lambda p, t: t + ".x"),
    "JSON serialization": ("malformed", lambda p, t: json.dumps(dict(zip(("protected", "payload", "signature"), t.split("."), strict=True)))),  # noqa: E501
    "too long": ("malformed", lambda p, t: t + "A" * jws.MAX_TOKEN),
    "not ASCII": ("malformed", lambda p, t: t[:-1] + "ä"),
    "nested without end": ("malformed", lambda p, t: _b64(b'{"alg":' + b"[" * 5000) + t[t.index("."):]),
    "a header in UTF-16": ("malformed", lambda p, t: _b64(json.dumps(_header(t)).encode("utf-16")) + t[t.index("."):]),
    "white space around": ("malformed", lambda p, t: f" {t}\n"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CORPUS)
def test_corpus_is_refused(parties: Parties, kind: str) -> None:
    """Each forged, altered or unfit token is refused with its code; the true one is believed before and after."""
    code, made = CORPUS[kind]
    true = parties.offer()
    parties.take(true)
    token = made(parties, true)
    assert token != true
    assert refused(parties, token) == code
    assert refused(parties, token) == code
    parties.take(parties.offer())


def test_wrong_sender_and_audience(parties: Parties) -> None:
    """A true token that another sends, or that was for another, is refused, and can still be used rightly."""
    token = parties.offer()
    assert refused(parties, token, sender=OTHER) == "wrong-sender"
    assert refused(parties, token, audience=f"mediator@{HERE}") == "wrong-audience"
    assert not parties.take(token).repeated


def test_what_it_answers(parties: Parties) -> None:
    """A token that answers something else than what it is taken for is refused: later, nobody could prove the link."""
    token = parties.offer()
    assert refused(parties, token, answering="blake3:" + "1" * 64) == "wrong-answer"
    assert refused(parties, parties.offer(answers=[]), answering=CALLS_DIGEST) == "wrong-answer"
    parties.take(token, answering=CALLS_DIGEST)


def test_expected_document(parties: Parties) -> None:
    """An offer is not taken where an agreement is expected."""
    assert refused(parties, parties.offer(), expect=Agreement) == "wrong-document"


def test_expiry(parties: Parties) -> None:
    """A token is good until the second it expires, and from that second on it is not."""
    token = parties.offer()
    parties.take(token, now=SOON - timedelta(seconds=1))
    assert refused(parties, token, now=SOON) == "expired"
    assert refused(parties, token, now=SOON + timedelta(days=99)) == "expired"


def test_clocks_may_differ_a_little(parties: Parties) -> None:
    """What was signed by a clock that is ahead is taken within the allowance, and refused beyond it."""
    parties.moment = NOW + SKEW
    parties.take(parties.offer(), now=NOW)
    parties.moment = NOW + SKEW + timedelta(seconds=1)
    assert refused(parties, parties.offer(), now=NOW) == "not-yet-valid"


def test_certificates_expire(parties: Parties) -> None:
    """A key that was certified long ago signs nothing that is believed now, neither openly nor with an old date."""
    end = NOW + keys.LIFETIME
    long = parties.offer(expires=end + timedelta(days=30))
    parties.take(long, now=end - timedelta(seconds=1))
    assert refused(parties, long, now=end) == "expired"
    late = _resigned(parties, {**_header(long), "iat": int(end.timestamp()), "jti": "n"})
    assert refused(parties, late, now=end + timedelta(seconds=1)) == "expired"


def test_replays(parties: Parties) -> None:
    """A token is good for one conversation: there its repetition is told as one; in another it is refused."""
    token = parties.offer()
    assert not parties.take(token).repeated
    assert parties.take(token).repeated
    assert refused(parties, token, conversation="call-other") == "replayed"
    assert parties.take(token).repeated
    again = _resigned(parties, _header(token), canonical(OFFER.model_copy(update={"region": "eu-2"})))
    assert refused(parties, again) == "replayed"


def test_what_is_refused_uses_up_no_nonce(parties: Parties) -> None:
    """An attacker who sends a token first, from elsewhere, does not keep its owner from using it."""
    token = parties.offer()
    for wrong in ({"sender": OTHER}, {"audience": OTHER}, {"now": SOON}, {"expect": Agreement}):
        refused(parties, token, **wrong)
    assert not parties.take(token).repeated


def test_guard_is_bounded_and_forgets_nothing_that_matters(parties: Parties) -> None:
    """The guard stays within its capacity, and a token whose nonce it had to forget is refused all the same."""
    replays = Replays(capacity=8)
    parties.verifier = Verifier(parties.trusted, replays)
    first = parties.offer()
    parties.take(first)
    for second in range(1, 30):
        parties.moment = NOW + timedelta(seconds=second)
        parties.take(parties.offer())
        assert len(replays) <= 8
    assert refused(parties, first) == "too-old"
    assert refused(parties, first, conversation="call-other") == "too-old"


def test_guard_holds_among_threads(parties: Parties) -> None:
    """However many threads verify at once, a token is taken in one conversation only."""
    parties.verifier = Verifier(parties.trusted, Replays(capacity=16))
    tokens = [parties.offer() for _ in range(8)]

    def take(number: int) -> bool:
        try:
            parties.take(tokens[number % 8], conversation=f"call-{number}")
        except Untrusted:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(64))) == 8


def test_expired_nonces_make_room_first(parties: Parties) -> None:
    """What has expired is forgotten before anything else, and no young token is refused for it."""
    parties.verifier = Verifier(parties.trusted, Replays(capacity=4))
    waiting = parties.offer()
    for _ in range(3):
        parties.take(parties.offer(expires=NOW + timedelta(seconds=1)))
    parties.moment = NOW + timedelta(seconds=2)
    for _ in range(3):
        parties.take(parties.offer())
    assert not parties.take(waiting).repeated


def test_expired_nonces_take_no_memory() -> None:
    """Long before the guard is full it forgets what has expired, and nothing that has not."""
    replays = Replays()
    for number in range(1, 20_000):
        given = {"token": "t", "conversation": "c", "issued": number, "expires": number + 100, "now": float(number)}
        assert not replays.take("kid", f"nonce-{number}", **given)
        assert len(replays) <= 1_000
    for number in range(19_900, 20_000):
        given = {"token": "t", "conversation": "c", "issued": number, "expires": number + 100, "now": 19_999.0}
        assert replays.take("kid", f"nonce-{number}", **given)


def test_trust_ends_at_once(parties: Parties) -> None:
    """A site that is trusted no longer is refused, certificates that were verified before notwithstanding."""
    parties.take(parties.offer())
    parties.trusted.replace([(HERE, parties.here.public)])
    assert refused(parties, parties.offer()) == "unknown-key"
    parties.trusted.replace([(HERE, parties.here.public), (THERE, parties.there.public)])
    parties.take(parties.offer())


def test_a_site_may_have_two_keys(parties: Parties) -> None:
    """While a site changes its key, agents certified by either are believed."""
    new = SiteKey.generate(THERE)
    parties.trusted.replace([(THERE, parties.there.public), (THERE, new.public)])
    parties.take(parties.offer())
    parties.take(parties.signer(VENDOR, new).sign(OFFER, audience=BROKER, expires=SOON))


def test_certificate_cache_is_bounded(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many agents speak, only so many certificates are remembered, and all agents are believed."""
    monkeypatch.setattr(keys, "MAX_CERTIFICATES", 3)
    signers = [parties.signer(f"vendor-{number}@{THERE}", parties.there) for number in range(6)]
    for _ in range(2):
        for signer in signers:
            parties.take(signer.sign(OFFER, audience=BROKER, expires=SOON), sender=signer.jid)
    assert len(parties.trusted._certificates) == 3


def test_a_site_certifies_only_its_own(parties: Parties) -> None:
    """A site's key gives no certificate to an agent of another domain, nor to what is no address."""
    for jid in (BROKER, f"x@sub.{THERE}", f"x@{THERE}/home", f"x@y@{THERE}", THERE, "", f"X@{THERE}"):
        with pytest.raises(ValueError, match="not an agent"):
            Signer(jid, parties.there).sign(OFFER, audience=BROKER, expires=SOON)


FIXED = Parties()
TOKEN = FIXED.offer()


@given(position=st.integers(0, len(TOKEN) * 8 - 1))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_changed_bit_is_refused(position: int) -> None:
    """A token with any one bit changed, in its header, certificate, payload or signature, is refused."""
    raw = bytearray(TOKEN.encode())
    raw[position // 8] ^= 1 << position % 8
    with pytest.raises(Untrusted):
        FIXED.take(raw.decode("latin-1"))


@given(part=st.sampled_from([0, 1, 2]), data=st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_changed_bit_of_the_decoded_parts_is_refused(part: int, data: st.DataObject) -> None:
    """The same below base64: header, payload and signature themselves."""
    parts = TOKEN.split(".")
    raw = bytearray(base64.urlsafe_b64decode(parts[part] + "==="))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    parts[part] = _b64(bytes(raw))
    with pytest.raises(Untrusted):
        FIXED.take(".".join(parts))


@given(token=st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: f"{_b64(raw)}.{_b64(raw)}.{_b64(raw)}"))
def test_garbage_is_refused(token: str) -> None:
    """Whatever is sent in place of a token, it is refused, and nothing breaks."""
    with pytest.raises(Untrusted):
        FIXED.take(token)
