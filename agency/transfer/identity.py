"""What a transfer proxy proves itself with, and whom it believes: ``transfer/`` in the state directory.

``certificate.pem`` and ``key.pem`` are its own; ``ca.pem`` has the authorities that it believes, its own site's first
(another site's is appended there). ``authority.pem`` and ``authority-key.pem`` are the site's authority, where it was
made here.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agency.problems import refuse

if TYPE_CHECKING:
    from cryptography import x509

    from agency.certificates import Authority

FOLDER = "transfer"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names that every proxy's certificate has: it listens there unless told otherwise."""


@dataclass(frozen=True)
class Peer:
    """The proxy at the other end, from its certificate, which a believed authority has signed."""

    name: str
    """Its own name: the first one in the certificate."""
    fingerprint: str
    """``sha256:`` and 64 hexadecimal digits, of the certificate."""

    def answers_to(self, whom: str) -> bool:
        """Whether it has that name, or that fingerprint."""
        return whom in (self.name, self.fingerprint)


def initialize(state: Path, site: str, names: list[str], authority: Path | None) -> tuple[Path, Peer]:
    """Make the proxy's key and certificate, for these names and IP addresses, the first of which is its own; where they
    are there, new ones, by the same authority. ``authority``: the directory of one that is there already. Gives the
    folder, and how others see this proxy."""
    from agency.certificates import certify, put

    folder = state / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    issuer = _authority(authority or folder, site, make=authority is None)
    identity = certify(issuer, [*names, *(each for each in LOOPBACK if each not in names)])
    if not (folder / "ca.pem").exists():
        put(folder / "ca.pem", issuer.certificate, 0o644)
    put(folder / "key.pem", identity.key, 0o600)
    put(folder / "certificate.pem", identity.certificate, 0o644)
    return folder, itself(state)


def _authority(folder: Path, site: str, *, make: bool) -> Authority:
    from agency.certificates import Authority, new_authority, put

    files = folder / "authority.pem", folder / "authority-key.pem"
    if make and not files[1].exists():
        made = new_authority(site)
        put(files[1], made.key, 0o600)
        put(files[0], made.certificate, 0o644)
    try:
        return Authority(files[0].read_bytes(), files[1].read_bytes())
    except OSError as error:
        remedy = "name a directory with authority.pem and authority-key.pem, such as `agency server init` makes in tls/"
        raise refuse("no-authority", f"{error.filename}: {error.strerror}", remedy) from None


def itself(state: Path) -> Peer:
    """How others see this proxy; refused where `agency transfer init` was not run."""
    from cryptography import x509

    return _peer(x509.load_pem_x509_certificate((_made(state) / "certificate.pem").read_bytes()))


def peer_of(stream: ssl.SSLSocket) -> Peer:
    """Who is at the other end of a connection on which certificates were verified."""
    from cryptography import x509

    der = stream.getpeercert(binary_form=True)
    if der is None:
        raise refuse("bad-peer", "the other proxy shows no certificate", "make it one with `agency transfer init`")
    return _peer(x509.load_der_x509_certificate(der))


def _peer(certificate: x509.Certificate) -> Peer:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    try:
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        name = str(names[0].value)
    except (x509.ExtensionNotFound, ValueError, IndexError):
        raise refuse("bad-peer", "a certificate has no name", "`agency transfer init` makes one that has") from None
    return Peer(name, f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}")


def accepting(state: Path) -> ssl.SSLContext:
    """For the data port: TLS 1.3, and whoever connects shows a certificate of an authority that is believed."""
    context = control(state)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(_made(state) / "ca.pem")
    return context


def control(state: Path) -> ssl.SSLContext:
    """For the control port: TLS 1.3; who has a token need not be anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    _load(context, _made(state))
    return context


def calling(state: Path) -> ssl.SSLContext:
    """To call another proxy: it is verified, and sees who calls."""
    context = anonymous(_made(state) / "ca.pem")
    _load(context, _made(state))
    return context


def anonymous(authorities: Path) -> ssl.SSLContext:
    """To call a proxy without being one: it is verified by the authorities in that PEM file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(authorities)
    except (OSError, ssl.SSLError) as error:
        message = f"{authorities} has no certificates of authorities: {_why(error)}"
        raise refuse("bad-certificate", message, "name a PEM file, such as the site's ca.pem") from None
    return context


def _load(context: ssl.SSLContext, folder: Path) -> None:
    try:
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    except (OSError, ssl.SSLError) as error:
        message = f"the certificate and key in {folder} cannot be used: {_why(error)}"
        raise refuse("bad-certificate", message, "`agency transfer init` makes new ones") from None


def _made(state: Path) -> Path:
    folder = state / FOLDER
    if not (folder / "key.pem").exists():
        remedy = "make them with `agency transfer init`, or name another state directory with --state"
        raise refuse("no-certificate", f"there are no key and certificate of a transfer proxy in {state}", remedy)
    return folder


def _why(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror)
