"""An LXD of our own for tests: a real LXD server with real containers, all in one temporary folder.

The server needs root. It runs in process and mount namespaces of its own: when it ends, every container, helper and
mount ends with it, and nothing of a system's LXD is touched. It answers over HTTPS on the loopback interface to one
client certificate. Its storage pool is a folder, and the image ``base`` is made on the spot (:mod:`tests.labs.guest`).

with start_lxd() as lab:
    module = LxdModule("lxd", lab.settings, services(lab.credentials))
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agency.servers.running import reserved_ports
from descriptors.base import utc_now
from tests.labs import guest
from vendor_modules.lxd.connection import Server
from vendor_modules.lxd.module import LxdSettings
from vendor_modules.resources import Size
from vendor_modules.services.credentials import KeyPairCredentials

PROGRAMS = {"lxd": "lxd", "dnsmasq": "dnsmasq-base", "unshare": "util-linux"}
READY_WITHIN = 60
"""Seconds; the machine that tests run on may be busy with other things."""
SEED = "/var/lib/cloud/seed/nocloud"


@dataclass(frozen=True)
class Lxd:
    """An LXD server that runs; ``socket`` is its own Unix socket, for what only its owner may."""

    folder: Path
    socket: str
    settings: LxdSettings
    credentials: KeyPairCredentials
    process: subprocess.Popen[bytes]

    def local(self) -> Server:
        """A client at the socket."""
        return Server(self.socket, None, "default").to(None)

    def log(self) -> str:
        """The server's log."""
        return (self.folder / "lxd.log").read_text(errors="replace")


def missing() -> str:
    """What is needed before the lab can run; empty when all is there."""
    packages = {package for name, package in PROGRAMS.items() if not shutil.which(name, path=guest.SEARCH)}
    words = [f"apt-get install {' '.join(sorted(packages))}"] if packages else []
    words += ["LXD runs as root"] if os.geteuid() else []
    try:
        guest.check_root()
    except guest.MissingPackages as error:
        words.append(str(error))
    try:
        import pylxd  # noqa: F401
    except ImportError:
        words.append("pip install 'cloud-agency[lxd]'")
    return "; ".join(words)


@contextmanager
def start_lxd() -> Iterator[Lxd]:
    """Run an LXD server until the block ends. Skips the test where a part is missing."""
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="agency-lxd-"))
    try:
        folder.chmod(0o711)  # the users of containers go through it
        process = _launch(folder)
        try:
            with reserved_ports(1) as (port,):
                lab = _ready(folder, process, port)
                yield lab
                _remove_all(lab)
        finally:
            process.kill()
            process.wait(60)
    finally:
        shutil.rmtree(folder)


def _launch(folder: Path) -> subprocess.Popen[bytes]:
    (folder / "state").mkdir(mode=0o711)
    environment = {"LXD_DIR": str(folder / "state"), "PATH": guest.SEARCH, "HOME": str(folder), "LANG": "C.UTF-8"}
    command = [*guest.APART, "lxd", "--group", "root", "--logfile", folder / "lxd.log"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=quiet, stderr=quiet)


def _ready(folder: Path, process: subprocess.Popen[bytes], port: int) -> Lxd:
    socket_path = str(folder / "state" / "unix.socket")
    server = _answering(socket_path, process)
    server.api.put(json={"config": {"core.https_address": f"127.0.0.1:{port}"}})
    certificate, key = _key_pair()
    server.api.certificates.post(
        json={"type": "client", "name": "tests", "certificate": "".join(certificate.splitlines()[1:-1])}
    )
    server.done(server.api.storage_pools.post(json={"name": "default", "driver": "dir"}))
    image = folder / "image.tar"
    make_image(image)
    with image.open("rb") as content:
        headers = {"Content-Type": "application/octet-stream"}
        made = server.done(server.api.images.post(data=content, headers=headers))
    server.api.images.aliases.post(json={"name": "base", "target": made["fingerprint"]})
    fingerprint = server.get(server.api)["environment"]["certificate_fingerprint"]
    server.close()
    sizes = (
        Size(name="small", cores=1, memory_mib=192, price_per_hour=Decimal("0.01")),
        Size(name="medium", cores=2, memory_mib=384, price_per_hour=Decimal("0.02")),
    )
    settings = LxdSettings(
        url=f"https://127.0.0.1:{port}", fingerprint=fingerprint, sizes=sizes, block_gib_month=Decimal("0.1")
    )
    return Lxd(folder, socket_path, settings, KeyPairCredentials(public_key=certificate, private_key=key), process)


def _answering(path: str, process: subprocess.Popen[bytes]) -> Server:
    for _ in range(10 * READY_WITHIN):
        assert process.poll() is None, "LXD ended at once"
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.settimeout(2)
            probe.connect(path)
            probe.sendall(b"GET /1.0 HTTP/1.0\r\nHost: lxd\r\n\r\n")
            if probe.recv(12).endswith(b" 200"):
                return Server(path, None, "default").to(None)
        time.sleep(0.1)
    raise AssertionError(f"LXD does not answer after {READY_WITHIN} s")


def _key_pair() -> tuple[str, str]:
    """A client certificate and its private key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cloud-agency tests")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(utc_now() - timedelta(hours=1)).not_valid_after(utc_now() + timedelta(days=2))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return made.sign(key, hashes.SHA256()).public_bytes(pem).decode(), secret.decode()


def make_image(archive: Path) -> None:
    """Make an image as LXD takes it; its templates hand user data to the guest as cloud-init images do."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as name:
        work = Path(name)
        (work / "rootfs").mkdir()
        (work / "rootfs").chmod(0o755)
        guest.root(work / "rootfs")
        (work / "rootfs" / ".container").touch()
        (work / "templates").mkdir()
        (work / "templates/meta").write_text(
            "instance-id: {{ container.name }}\nlocal-hostname: {{ container.name }}\n"
        )
        (work / "templates/user").write_text('{{ config_get("user.user-data", "") }}')
        when = ["create", "copy"]
        metadata = {
            "architecture": "x86_64",
            "creation_date": 1,
            "properties": {"description": "made by the tests"},
            "templates": {
                f"{SEED}/meta-data": {"when": when, "template": "meta"},
                f"{SEED}/user-data": {"when": when, "template": "user"},
            },
        }
        (work / "metadata.yaml").write_text(yaml.safe_dump(metadata))
        with tarfile.open(archive, "w") as tar:
            for part in ("metadata.yaml", "templates", "rootfs"):
                tar.add(work / part, arcname=part)


def _remove_all(lab: Lxd) -> None:
    """Remove what outlives the server: the bridges of networks and the control groups of containers."""
    server = lab.local()
    for instance in server.get(server.api.instances, params={"recursion": 1}):
        with suppress(Exception):
            node = server.api.instances[instance["name"]]
            server.done(node.state.put(json={"action": "stop", "force": True}))
        server.done(server.api.instances[instance["name"]].delete())
    for network in server.get(server.api.networks, params={"recursion": 1}):
        if network["managed"]:
            server.done(server.api.networks[network["name"]].delete())
    server.close()
