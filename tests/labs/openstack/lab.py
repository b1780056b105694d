"""The lab as a whole: starts both clouds, and stops them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import yaml

from tests.labs.openstack.cloud import DATABASES, Cloud
from tests.labs.openstack.guest import guest_image
from tests.labs.openstack.installation import (
    HERE,
    REQUIREMENTS,
    SEARCH,
    cache,
    fingerprint,
    made_once,
    virtual_environment,
)
from tests.labs.openstack.processes import Processes, listens
from tests.labs.openstack.shared import DATABASE_PORT, MESSAGE_PORT, Shared

CLOUDS = ("a", "b")
PROJECTS = ("nova", "neutron", "cinder", "glance", "swift")
"""In the order of how long they take to start; keystone and placement, which they ask at once, are started before."""
PLACES = (
    ("keystone", "endpoint", "url"),
    ("nova_api", "cell_mappings", "transport_url"),
    ("nova_api", "cell_mappings", "database_connection"),
)
"""Where the databases hold addresses: database, table, column."""


class Lab:
    """Two clouds whose state lies below one directory."""

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "home").mkdir(exist_ok=True)
        self.venv = virtual_environment()
        self.processes = Processes(self.state, self._environment())
        self.network = self._network()
        self.shared = Shared(self.state, f"{self.network}.1", self.processes)
        self.clouds = [Cloud(c, self.state, self.network, self.venv, self.shared, self.processes) for c in CLOUDS]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{HERE / 'programs'}:{self.venv / 'bin'}:{SEARCH}",
            "PYTHONPATH": str(self.state / "site"),
            "PYTHONWARNINGS": "ignore",
            "HOME": str(self.state / "home"),
            "LANG": "C.UTF-8",
            "no_proxy": "*",
        }

    def _network(self) -> str:
        """The part of the loopback network that this lab uses, and no other."""
        record = self.state / "network"
        if not record.exists():
            free = (f"127.77.{(os.getpid() + i) % 254}" for i in range(254))
            record.write_text(
                next(n for n in free if not any(listens(f"{n}.1", p) for p in (DATABASE_PORT, MESSAGE_PORT)))
            )
        return record.read_text()

    # --- up ---

    def start(self) -> Path:
        """Start whatever does not run; gives the path of a clouds.yaml. :class:`LabFailed` says what does not start."""
        guest = guest_image()
        for cloud in self.clouds:
            cloud.configure()
        self._mechanism_driver()
        with ThreadPoolExecutor(2) as pool:
            messages = pool.submit(self.shared.start_messages, [cloud.name for cloud in self.clouds])
            self._start_databases()
            messages.result()
        for cloud in self.clouds:
            cloud.make_export()  # before libvirtd takes its copy of the mount table
            cloud.start_libvirt()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._start_project, ("keystone", "placement")))
            list(pool.map(lambda cloud: [cloud.wait(project) for project in ("keystone", "placement")], self.clouds))
            list(pool.map(self._await_libvirt, self.clouds))
            list(pool.map(Cloud.make_rings, self.clouds))
            list(pool.map(self._start_project, PROJECTS))
            list(pool.map(lambda cloud: [cloud.wait(project) for project in PROJECTS], self.clouds))
            list(pool.map(lambda cloud: cloud.fill("resources", guest), self.clouds))
        names = self.state / "clouds.yaml"
        entries = {name: entry for cloud in self.clouds for name, entry in cloud.clouds_yaml().items()}
        names.write_text(yaml.safe_dump({"clouds": entries}))
        return names

    def _mechanism_driver(self) -> None:
        """Neutron finds its plug-ins by the entry points of installed packages: this makes ours look like one."""
        site = self.state / "site"
        information = site / "lab_ml2-1.0.dist-info"
        information.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "inside/lab_ml2.py", site)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-ml2\nVersion: 1.0\n")
        points = "[neutron.ml2.mechanism_drivers]\nlabbridge = lab_ml2:BridgeMechanismDriver\n"
        (information / "entry_points.txt").write_text(points)

    def _start_project(self, project: str) -> None:
        """Start a project's services of all clouds that do not run."""
        services = [service for cloud in self.clouds for service in cloud.services(project)]
        services = [service for service in services if not self.processes.alive(service["name"])]
        if services:
            self.processes.launch(self.venv / "bin/python", HERE / "inside/services.py", project, services)

    def _await_libvirt(self, cloud: Cloud) -> None:
        socket = cloud.dir / "libvirt/run/libvirt-sock"
        self.processes.wait(f"{cloud.name}-libvirtd", socket.exists)

    # --- databases ---

    def _start_databases(self) -> None:
        """Start with databases that are made once, and kept in the cache."""
        if not self.shared.data.exists():
            self._take_databases()
        if self.shared.start_database():
            raise AssertionError("the cache holds no databases")

    def _take_databases(self) -> None:
        kept = cache() / f"openstack-databases-{fingerprint(REQUIREMENTS, *HERE.rglob('*.py'), *HERE.rglob('*.conf'))}"
        with made_once(kept) as part:
            if part:
                self._make_databases()
                part.mkdir()
                shutil.copytree(self.shared.data, part / "data")
                (part / "network").write_text(self.network)
                return
        shutil.copytree(kept / "data", self.shared.data)
        self.shared.start_database()
        old, new = (kept / "network").read_text(), self.network
        for cloud in self.clouds:
            for database, table, column in PLACES:
                change = f"UPDATE {table} SET {column} = REPLACE({column}, '{old}.', '{new}.')"  # noqa: S608
                self.shared.sql(change, f"{cloud.letter}_{database}")

    def _make_databases(self) -> None:
        """The first cloud's by OpenStack's own tools, the second's as a copy; both with all accounts. Their files are
        whole in the end: the server has ended."""
        first, *others = self.clouds
        self.shared.start_database()
        names = [f"{cloud.letter}_{name}" for cloud in self.clouds for name in DATABASES]
        self.shared.sql("".join(f"CREATE DATABASE {name} CHARACTER SET utf8mb3;" for name in names))
        with ThreadPoolExecutor(2) as pool:
            for step in [pool.submit(step) for step in first.database_steps()]:
                step.result()
        for cloud in others:
            replaced = {f"/{first.letter}_nova": f"/{cloud.letter}_nova", f"/{first.name}": f"/{cloud.name}"}
            for name in DATABASES:
                self.shared.copy_database(f"{first.letter}_{name}", f"{cloud.letter}_{name}", replaced)
        for cloud in self.clouds:
            cloud.make_administrator()
        self._start_project("keystone")
        for cloud in self.clouds:
            cloud.wait("keystone")
            cloud.fill("identity")
        self.processes.stop([f"{cloud.name}-keystone" for cloud in self.clouds])
        self.shared.stop_database()

    # --- down ---

    def stop(self) -> None:
        """End all that the lab started, guests first, and take away its mounts and bridges."""
        bridges = self._bridges()
        names = self.processes.names()
        for cloud in self.clouds:
            if self.processes.alive(f"{cloud.name}-libvirtd"):
                _end_guests(cloud.dir / "libvirt/run/qemu")
        last = {"mariadb", "rabbitmq", "epmd"}
        self.processes.stop(name for name in names if name not in last)
        self.processes.stop(last)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (place := line.split()[1]).startswith(f"{self.state}/"):
                subprocess.run(["umount", place], check=True)
        for bridge in bridges:
            subprocess.run(["ip", "link", "delete", bridge], env=self.processes.environment, check=True)

    def _bridges(self) -> list[str]:
        """The Linux bridges that nova has made, also for networks that are gone: it logs each, and removes none."""
        logs = (path.read_text(errors="replace") for path in self.processes.logs.glob("*-nova-compute.log"))
        made = {name for log in logs for name in re.findall(r"brq[0-9a-f]{8}-[0-9a-f]{2}", log)}
        return sorted(name for name in made if Path("/sys/class/net", name).exists())

    def log_tails(self) -> str:
        """What every process that has ended printed last."""
        dead = [name for name in self.processes.names() if not self.processes.alive(name)]
        return "\n".join(f"=== {name} ended\n{self.processes.tail(name)}" for name in dead)


def _end_guests(folder: Path) -> None:
    """Guests have sessions of their own; libvirtd wrote down their process ids."""
    for file in folder.glob("*.pid"):
        with suppress(ValueError, OSError):
            pid = int(file.read_text())
            if b"qemu" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
