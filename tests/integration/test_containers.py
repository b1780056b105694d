"""The images and the compose file of ``docker/``: they build, and what is in them starts and answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from agency.api.server import API_FILE
from agency.servers.running import reserved_ports
from tests.labs.agency import wait_until
from tests.labs.containers import TOP, ImageStore, image_store
from tests.labs.postgresql import running_postgresql

pytestmark = pytest.mark.integration

COMPOSE = TOP / "docker" / "compose.yaml"
USER = 10001
"""Whom both images run as: they share volumes."""


@pytest.fixture(scope="module")
def images() -> Iterator[ImageStore]:
    """Both images, built."""
    with image_store() as store:
        store.build("agency")
        store.build("ejabberd")
        yield store


@pytest.fixture
def volumes() -> Iterator[dict[str, Path]]:
    """The compose file's volumes as directories, owned as an image's directories are."""
    place = Path(tempfile.mkdtemp(prefix="agency-volumes-"))
    place.chmod(0o711)
    made = {name: place / name for name in composed()["volumes"]}
    for name, path in made.items():
        path.mkdir()
        os.chown(path, USER, USER)
        path.chmod(0o777 if name == "database-socket" else 0o700)
    yield made
    shutil.rmtree(place)


def composed() -> dict[str, Any]:
    """The compose file as it is written, with merges resolved."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def mounted(service: str, volumes: dict[str, Path]) -> dict[Path, str]:
    """A service's volumes: what of ours is where in it."""
    pairs = (each.split(":") for each in composed()["services"][service]["volumes"])
    return {volumes[name]: where for name, where in pairs}


def test_the_compose_file_is_valid() -> None:
    """Docker's own tool accepts the file with a domain, and without one says what is missing."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed: Debian's package is docker-compose")
    check = ["docker-compose", "--file", COMPOSE, "config", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if name != "XMPP_DOMAIN"}
    done = subprocess.run(check, env={**environment, "XMPP_DOMAIN": "a.example"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(check, env=environment, capture_output=True, check=False, text=True)
    assert done.returncode == 1
    assert "the site's XMPP domain" in done.stderr


def test_what_the_compose_file_refers_to_is_there() -> None:
    """Images are built from files that exist, services wait for services that can be healthy, volumes are declared; no
    port is published beyond the loopback interface, and the agency has none but ejabberd's network."""
    document = composed()
    services = document["services"]
    built = {service["image"] for service in services.values() if "build" in service}
    for name, service in services.items():
        if "build" in service:
            assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        else:
            assert service["image"] in built or re.fullmatch(r"docker\.io/library/\w+:\d+", service["image"])
        for other, waiting in service.get("depends_on", {}).items():
            assert waiting["condition"] == "service_completed_successfully" or "healthcheck" in services[other], name
        for volume in service["volumes"]:
            assert volume.split(":")[0] in document["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        assert not [key for key in service.get("environment", {}) if re.search("PASSWORD|SECRET|KEY|TOKEN", key)]
    assert services["agency"]["network_mode"] == "service:ejabberd"


def test_a_site_starts_and_answers(images: ImageStore, volumes: dict[str, Path]) -> None:
    """With the compose file's images, volumes, environment and health checks, `init` sets ejabberd up, ejabberd and the
    agency on PostgreSQL start as a user without privileges, the agency answers, and the secret that lets it in at
    ejabberd is in ejabberd's configuration only, and in the database encrypted."""
    services = composed()["services"]
    with (
        reserved_ports(3) as ports,
        running_postgresql(volumes["database-socket"]) as url,
        images.container("agency", mounted("agency", volumes) | mounted("init", volumes)) as agency,
        images.container("ejabberd", mounted("ejabberd", volumes)) as ejabberd,
    ):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE agency")
        database = {**services["init"]["environment"], "PGPORT": str(url.split(":")[-1].split("/")[0])}
        del database["XMPP_DOMAIN"]
        c2s, s2s, component = map(str, ports)
        init = ["agency", "server", "init", "ejabberd", "--domain", "a.test", "--dir", "/srv/xmpp", "--json"]
        init += ["--c2s-port", c2s, "--s2s-port", s2s, "--component-port", component]
        told = json.loads(agency.run(*init, **database))["environment"]
        told["AGENCY_SERVER"] = f"127.0.0.1:{component}"
        assert agency.run("id", "-u") == ejabberd.run("id", "-u") == str(USER)
        with ejabberd.running("/srv/xmpp/start"):
            healthy = [part.replace("5347", component) for part in services["ejabberd"]["healthcheck"]["test"][1:]]
            wait_until("ejabberd is healthy", lambda: works(ejabberd, *healthy), within=120.0, every=0.5)
            with agency.running("agency", "up", "--no-testbed", **database, **told):
                wait_until("the agency has begun", lambda: (volumes["state"] / API_FILE).exists(), within=120.0)
                healthy = services["agency"]["healthcheck"]["test"][1:]
                wait_until("the agency is healthy", lambda: works(agency, *healthy), within=60.0, every=0.5)
                assert json.loads(agency.run("agency", "vendors", "--json")) == {"vendors": []}
                log = (volumes["xmpp"] / "data/ejabberd.log").read_text()
                assert "handshake authentication for agency.a.test" in log, "the agency is ejabberd's component"
    (secret,) = re.findall(r'password: "(.+)"', (volumes["xmpp"] / "ejabberd.yml").read_text())
    written = [file for volume in ("state", "xmpp") for file in volumes[volume].rglob("*") if file.is_file()]
    assert [file.name for file in written if secret.encode() in file.read_bytes()] == ["ejabberd.yml"]
    assert not list(volumes["state"].glob("*.db")), "everything is in PostgreSQL"


def works(container: Any, *command: str) -> bool:
    """Whether the command succeeds there."""
    try:
        container.run(*command)
    except AssertionError:
        return False
    return True
