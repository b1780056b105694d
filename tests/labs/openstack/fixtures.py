"""What tests of OpenStack clouds begin with."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.labs.openstack.installation import missing
from tests.labs.openstack.lab import Lab


@dataclass(frozen=True)
class Account:
    """An account at one of the clouds."""

    auth_url: str
    region: str
    username: str
    password: str
    project: str


@dataclass(frozen=True)
class OpenStackClouds:
    """The running clouds: the path of their clouds.yaml, and its entries."""

    path: Path
    entries: dict[str, Any]

    def account(self, name: str) -> Account:
        """An entry, such as ``cloud-a`` (an ordinary account), ``cloud-a-beta`` (another) or ``cloud-a-admin``."""
        entry = self.entries[name]
        auth = entry["auth"]
        return Account(auth["auth_url"], entry["region_name"], auth["username"], auth["password"], auth["project_name"])


@pytest.fixture(scope="session")
def openstack_clouds() -> Iterator[OpenStackClouds]:
    """Both clouds. Those of a lab that AGENCY_TEST_OPENSTACK names (its clouds.yaml) are taken as they are; else a lab
    is started, and stopped in the end."""
    if given := os.environ.get("AGENCY_TEST_OPENSTACK"):
        yield _clouds(Path(given))
        return
    with running_clouds() as clouds:
        yield clouds


@contextmanager
def running_clouds() -> Iterator[OpenStackClouds]:
    """Run a lab until the block ends; skips the test where the lab cannot run."""
    if reason := missing():
        pytest.skip(reason)
    state = Path(tempfile.mkdtemp(prefix="agency-openstack-"))
    lab = Lab(state)
    try:
        yield _clouds(lab.start())
    finally:
        lab.stop()
        shutil.rmtree(state)


def _clouds(path: Path) -> OpenStackClouds:
    return OpenStackClouds(path, yaml.safe_load(path.read_text())["clouds"])
