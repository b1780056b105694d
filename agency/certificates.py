"""What a server proves itself with: a certificate of the site's own authority, or one that was given, and tried."""

from __future__ import annotations

import ipaddress
import os
import secrets
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agency.problems import refuse
from descriptors.base import utc_now

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 730
_AGO = timedelta(hours=1)
"""Clocks of others may be a little behind ours."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its certificate, which others are given, and its key, which nobody is. Both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Authority(…)"


@dataclass(frozen=True)
class Identity:
    """What a server shows (its certificate, and those between it and the authority), its key, and the authorities that
    it believes. All PEM."""

    certificate: bytes
    key: bytes
    authorities: bytes

    def __repr__(self) -> str:
        return "Identity(…)"


def new_authority(site: str) -> Authority:
    """A certificate authority for the servers of a site; it can certify no other authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Cloud Agency {site}"[:64])])
    usage = x509.KeyUsage(
        False, False, False, False, False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False
    )
    certificate = (
        _begun(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate.public_bytes(Encoding.PEM), _pem(key))


def certify(authority: Authority, names: list[str]) -> Identity:
    """A certificate for a server of these names, or IP addresses, the first of which is its own."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = cast(ec.EllipticCurvePrivateKey, load_pem_private_key(authority.key, None))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    usages = [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]  # a server that calls another is its client
    certificate = (
        _begun(name, issuer.subject, key.public_key(), CERTIFICATE_DAYS)
        .add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Identity(certificate.public_bytes(Encoding.PEM), _pem(key), authority.certificate)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = utc_now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _AGO)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def given(certificate: Path, key: Path, authorities: Path, names: list[str]) -> Identity:
    """What these PEM files hold, after a handshake for each name has shown that others will believe it; refused with
    the reason if not."""
    identity = Identity(_read(certificate), _read(key), _read(authorities))
    for name in names:
        try:
            _try_out(identity, name)
        except ssl.SSLCertVerificationError as error:
            message = f"{certificate} does not do for {name}: {error.verify_message}"
            remedy = (
                f"give a certificate for {', '.join(names)} that is valid now, and with --ca the authority it is from"
            )
            raise refuse("bad-certificate", message, remedy) from None
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            message = f"{certificate}, {key} and {authorities} cannot be used: {reason}"
            raise refuse(
                "bad-certificate", message, "give PEM files; the key must be the certificate's, and have no password"
            ) from None
    return identity


def put(file: Path, content: bytes, mode: int, prepare: Callable[[Path], None] = lambda _: None) -> None:
    """Write a file whole or not at all; at no time can more people read it than ``mode`` says. ``prepare`` sees it
    before it has its name."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        prepare(draft)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise refuse("file-missing", f"{file}: {error.strerror}", "name a file that can be read") from None


def _try_out(identity: Identity, name: str) -> None:
    """A TLS handshake in memory between a server with this identity and a peer that verifies it as that name."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as certificate, tempfile.NamedTemporaryFile() as key:  # made for our eyes only
        for file, content in ((certificate, identity.certificate), (key, identity.key)):
            file.write(content)
            file.flush()
        server.load_cert_chain(certificate.name, key.name, password=_no_password)
    peer = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    peer.load_verify_locations(cadata=identity.authorities.decode("ascii"))
    to_server, to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        peer.wrap_bio(to_peer, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_peer, server_side=True),
    )
    done = [False, False]
    while not all(done):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done[number] = True
            except ssl.SSLWantReadError:
                continue


def _no_password() -> str:
    raise ValueError("the key has a password")
