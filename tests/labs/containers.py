"""The images of ``docker/``, built by buildah with no engine and no registry: the base is made by debootstrap, and
Python packages come from a folder that pip filled. Both are kept in a cache, since they take a minute to make.

    with image_store() as store:
        store.build("agency")
        with store.container("agency", volumes={directory: "/var/lib/cloud-agency"}) as container:
            with container.running("agency", "up", AGENCY_TESTBED="false"): …

Containers run by chroot: they share the machine's network and see its processes, and need root to be made.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.labs.openstack.installation import cache, fingerprint, made_once

TOP = Path(__file__).parent.parent.parent
SUITE = "bookworm"
BASE = "localhost/base"
ENDS_WITHIN = 60.0
IN_MEMORY = 8 << 30
"""Bytes that must be free for a store to be made in memory: several times what it takes."""


def _succeed(*command: str | Path, timeout: float = 500.0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=TOP, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def _base() -> Path:
    """A small Debian as a tar archive, like the official image: as there, no package may start a server, and none is
    written through to the disk."""
    with made_once(cache() / f"debian-{SUITE}.tar") as archive:
        if archive:
            with tempfile.TemporaryDirectory(prefix="agency-debian-") as place:
                root = Path(place) / "root"
                packages = "--include=ca-certificates,python3,python3-venv"
                _succeed("debootstrap", "--variant=minbase", packages, SUITE, root)
                policy = root / "usr/sbin/policy-rc.d"
                policy.write_text("#!/bin/sh\nexit 101\n")
                policy.chmod(0o755)
                (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
                shutil.rmtree(root / "var/cache/apt/archives")
                _succeed("tar", "--one-file-system", "-C", root, "-cf", archive, ".")
    return cache() / f"debian-{SUITE}.tar"


def _wheels() -> Path:
    """The Python packages that the agency needs, as `pip` here gets them: buildah's pip need not know how."""
    ready = cache() / f"wheels-{fingerprint(TOP / 'pyproject.toml', TOP / 'constraints.txt')}"
    with made_once(ready) as folder:
        if folder:
            project = tomllib.loads((TOP / "pyproject.toml").read_text())
            wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
            pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--constraint", "constraints.txt"]
            _succeed(*pip, "--wheel-dir", folder, *wanted)
    return ready


class Container:
    """A container with its volumes; commands are run in it by chroot."""

    def __init__(self, buildah: list[str], name: str, volumes: Mapping[Path, str]) -> None:
        self._run = [*buildah, "run", "--isolation", "chroot"]
        for here, there in volumes.items():
            self._run += ["--volume", f"{here}:{there}"]
        self._name = name

    def _command(self, command: tuple[str, ...], env: Mapping[str, str]) -> list[str]:
        return [*self._run, *(f"--env={name}={value}" for name, value in env.items()), self._name, "--", *command]

    def run(self, *command: str, **env: str) -> str:
        """Run a command to its end; gives what it wrote."""
        return _succeed(*self._command(command, env))

    @contextmanager
    def running(self, *command: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command until the block ends."""
        process = subprocess.Popen(
            self._command(command, env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class ImageStore:
    """Images and containers of a test's own, apart from the user's."""

    def __init__(self, place: Path) -> None:
        self._buildah = [
            "buildah",
            "--storage-driver",
            "vfs",
            "--root",
            str(place / "root"),
            "--runroot",
            str(place / "run"),
        ]
        base = _succeed(*self._buildah, "from", "scratch")
        _succeed(*self._buildah, "add", "--quiet", base, _base(), "/")
        _succeed(*self._buildah, "commit", "--quiet", "--rm", base, BASE)

    def build(self, name: str) -> None:
        """Build the image of ``docker/NAME.Containerfile``."""
        options = ["--isolation", "chroot", "--layers=false", "--build-arg", f"BASE={BASE}"]
        wheels = ["--build-arg", "PIP_ARGUMENTS=--no-index --find-links=/wheels", "--volume", f"{_wheels()}:/wheels:ro"]
        file = ["--file", f"docker/{name}.Containerfile", "--tag", f"localhost/{name}", "."]
        _succeed(*self._buildah, "build", *options, *(wheels if name == "agency" else []), *file)

    @contextmanager
    def container(self, image: str, volumes: Mapping[Path, str]) -> Iterator[Container]:
        """A container of an image that was built, until the block ends."""
        name = _succeed(*self._buildah, "from", f"localhost/{image}")
        try:
            yield Container(self._buildah, name, volumes)
        finally:
            _succeed(*self._buildah, "rm", name)


def _roomy() -> Path | None:
    """Where a store is made: in memory if there is plenty, as it is many copies of small files; else where temporary
    files are."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        return None
    flags = os.statvfs(memory).f_flag
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fits = min(available, shutil.disk_usage(memory).free) > IN_MEMORY
    return memory if fits and not flags & (os.ST_NOEXEC | os.ST_NODEV) else None


@contextmanager
def image_store() -> Iterator[ImageStore]:
    """A store with the base image, removed when the block ends; the test is skipped where it cannot be."""
    missing = [program for program in ("buildah", "debootstrap") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"images are built by root, with the Debian packages buildah and debootstrap; missing: {missing}")
    with ExitStack() as cleaning:
        place = Path(tempfile.mkdtemp(prefix="agency-images-", dir=_roomy()))
        cleaning.callback(shutil.rmtree, place)
        yield ImageStore(place)
