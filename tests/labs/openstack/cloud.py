"""One cloud of the lab: its configuration, its services, its accounts."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from tests.labs.openstack.processes import Processes, answers
from tests.labs.openstack.shared import PASSWORD, Shared

HERE = Path(__file__).parent
NAMES = ("keystone", "glance", "placement", "nova", "neutron", "cinder", "swift")
STORAGE = ("account", "container", "object")
DATABASES = ("keystone", "glance", "placement", "nova_api", "nova", "nova_cell0", "neutron", "cinder")
TENANTS = ("alpha", "beta")
"""Ordinary accounts, each with a project and a network of its own; besides them there is admin."""
EXPORT_BYTES = 20 << 30

AUTHENTICATION = """auth_url = {url}
auth_type = password
project_domain_name = Default
user_domain_name = Default
project_name = service
username = {user}
password = {password}
region_name = {region}"""


class Cloud:
    """A cloud with the letter ``a`` or ``b``."""

    def __init__(
        self, letter: str, state: Path, network: str, venv: Path, shared: Shared, processes: Processes
    ) -> None:
        """``network`` is the lab's part of the loopback network, such as ``127.77.5``."""
        self.letter, self.name, self.region = letter, f"cloud-{letter}", f"Region{letter.upper()}"
        self.host = f"{network}.{10 + ord(letter) - ord('a') + 1}"
        self.ports = {name: 21000 + i for i, name in enumerate((*NAMES, *(f"swift-{kind}" for kind in STORAGE)))}
        self.dir, self.venv, self.shared, self.processes = state / self.name, venv, shared, processes
        self.etc = self.dir / "etc"

    def url(self, service: str) -> str:
        """Where a service answers."""
        return f"http://{self.host}:{self.ports[service]}"

    @property
    def auth_url(self) -> str:
        """Where keystone answers."""
        return f"{self.url('keystone')}/v3"

    # --- files ---

    def configure(self) -> None:
        """Write all configuration files, and make the folders that they name."""
        folders = ["etc", "glance/images", "glance/staging", "glance/tasks", "nova/instances", "nova/mnt", "neutron"]
        folders += ["cinder/mnt", "cinder/export", "cinder/conv", "locks", "swift/node/d1"]
        folders += [f"libvirt/{folder}" for folder in ("run", "lib", "log", "cache", "etc")]
        for folder in folders:
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        for template in (HERE / "config").glob("*.conf"):
            if template.name != "swift-storage.conf":
                self._write(template.name, template)
        for kind in STORAGE:
            port = self.ports[f"swift-{kind}"]
            self._write(f"swift-{kind}.conf", HERE / "config/swift-storage.conf", kind=kind, port=port)
        (self.dir / "cinder/shares").write_text(f"127.0.0.1:{self.dir}/cinder/export\n")
        self._libvirt_files()
        self._keys()
        self._facts().write_text(json.dumps(self.facts()))

    def _write(self, name: str, template: Path, **more: object) -> None:
        users = {f"auth_{user}": self._authentication(user) for user in NAMES if user != "keystone"}
        databases = {f"database_{name}": self.shared.database(f"{self.letter}_{name}") for name in DATABASES}
        ports = {f"port_{name}": port for name, port in self.ports.items()}
        text = Template(template.read_text()).substitute(
            users | databases | ports | more,
            letter=self.letter,
            name=self.name,
            ip=self.host,
            region=self.region,
            dir=self.dir,
            etc=self.etc,
            log=self.processes.logs,
            venv=self.venv,
            messages=self.shared.messages(self.name),
        )
        (self.etc / name).write_text(text)

    def _authentication(self, user: str) -> str:
        return AUTHENTICATION.format(url=self.auth_url, user=user, password=PASSWORD, region=self.region)

    def _libvirt_files(self) -> None:
        folder = self.dir / "libvirt"
        (folder / "etc/qemu.conf").write_text(
            'user = "root"\ngroup = "root"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = "none"\n'
            'stdio_handler = "file"\nnamespaces = []\ncgroup_controllers = []\n'
        )
        log = self.processes.logs / f"{self.name}-libvirtd.log"
        (folder / "libvirtd.conf").write_text(
            f'auth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_outputs = "3:file:{log}"\n'
        )
        nobody = {
            "passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin",
            "group": "libvirt-qemu:x:64055:",
        }
        for file, line in nobody.items():
            (folder / file).write_text(Path("/etc", file).read_text() + line + "\n")

    def _keys(self) -> None:
        """The keys that keystone makes its tokens with."""
        for folder in (self.dir / "keystone/fernet", self.dir / "keystone/credential"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            for name in ("0", "1"):
                if not (folder / name).exists():
                    (folder / name).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
                    (folder / name).chmod(0o600)

    def _facts(self) -> Path:
        return self.dir / "facts.json"

    def facts(self) -> dict[str, Any]:
        """What ``inside/fill.py`` must know."""
        nova, volumes = f"{self.url('nova')}/v2.1", f"{self.url('cinder')}/v3/%(project_id)s"
        objects = f"{self.url('swift')}/v1/AUTH_%(project_id)s"
        services = [["glance", "image", self.url("glance")], ["placement", "placement", self.url("placement")]]
        services += [["nova", "compute", nova], ["neutron", "network", self.url("neutron")]]
        services += [["cinderv3", "volumev3", volumes], ["swift", "object-store", objects]]
        return {
            "name": self.name,
            "auth_url": self.auth_url,
            "region": self.region,
            "password": PASSWORD,
            "services": services,
            "tenants": TENANTS,
            "public": "203.0.113.0/24" if self.letter == "a" else "198.51.100.0/24",
        }

    def clouds_yaml(self) -> dict[str, Any]:
        """This cloud's entries of a clouds.yaml."""
        entries = {}
        for suffix, user in (("", "alpha"), ("-beta", "beta"), ("-admin", "admin")):
            names = {"user_domain_name": "Default", "project_domain_name": "Default"}
            account = {"auth_url": self.auth_url, "username": user, "password": PASSWORD, "project_name": user}
            entries[f"{self.name}{suffix}"] = {"region_name": self.region, "auth": account | names}
        return entries

    # --- databases and accounts ---

    def database_steps(self) -> list[Callable[[], None]]:
        """What makes the tables of all services, the longest first; the steps can run side by side."""
        nova = ["--config-file", self.etc / "nova.conf", "--config-file", self.etc / "nova-databases.conf"]
        steps = [partial(self._inside, "nova_databases.py", "--config-file", self.etc / "common.conf", *nova)]
        for program, project, *command in (
            ("neutron-db-manage", "neutron", "upgrade", "heads"),
            ("cinder-manage", "cinder", "db", "sync"),
            ("keystone-manage", "keystone", "db_sync"),
            ("glance-manage", "glance", "db", "sync"),
            ("placement-manage", "placement", "db", "sync"),
        ):
            files = ["--config-file", self.etc / "common.conf", "--config-file", self.etc / f"{project}.conf"]
            words = [self.venv / "bin" / program, *files, *command]
            steps.append(partial(self.processes.run, f"{self.name}-{program}", words))
        return steps

    def make_administrator(self) -> None:
        """Keystone's first account, without which nothing can be asked of it."""
        command = [self.venv / "bin/keystone-manage", "--config-file", self.etc / "keystone.conf", "bootstrap"]
        account = [
            "--bootstrap-username",
            "admin",
            "--bootstrap-password",
            PASSWORD,
            "--bootstrap-project-name",
            "admin",
        ]
        place = ["--bootstrap-region-id", self.region]
        place += [
            part for side in ("public", "internal", "admin") for part in (f"--bootstrap-{side}-url", self.auth_url)
        ]
        self.processes.run(f"{self.name}-bootstrap", [*command, *account, *place])

    def fill(self, step: str, *more: Path) -> None:
        """Make accounts (``identity``) or flavours, networks, volume types and an image (``resources``)."""
        self._inside("fill.py", step, self._facts(), *more)

    def _inside(self, script: str, *arguments: str | Path) -> None:
        command = [self.venv / "bin/python", HERE / "inside" / script, *arguments]
        self.processes.run(f"{self.name}-{Path(script).stem}", command)

    # --- services ---

    def make_export(self) -> None:
        """What cinder takes for an NFS share must be a file system of its own: nova asks whether it is a mount."""
        export, disk = self.dir / "cinder/export", self.dir / "cinder/export.img"
        if export.is_mount():
            return
        if not disk.exists():
            with disk.open("wb") as file:
                file.truncate(EXPORT_BYTES)
            make = ["mkfs.ext4", "-q", "-m0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", disk]
            self.processes.run(f"{self.name}-mkfs", make)
        subprocess.run(["/usr/bin/mount", "-o", "loop", disk, export], check=True)

    def make_rings(self) -> None:
        """Tell swift of its one disk."""
        ports = json.dumps({kind: self.ports[f"swift-{kind}"] for kind in STORAGE})
        self._inside("rings.py", self.host, ports, self.etc)

    def start_libvirt(self) -> None:
        """Start libvirtd in a mount namespace of its own."""
        command = ["unshare", "-m", "--propagation", "private", HERE / "programs/libvirtd", self.dir / "libvirt"]
        self.processes.start(f"{self.name}-libvirtd", command)

    def services(self, project: str) -> list[dict[str, Any]]:
        """What ``inside/services.py`` is told to start of a project."""
        files = ["--config-file", self.etc / "common.conf", "--config-file", self.etc / f"{project}.conf"]
        if project in ("keystone", "placement"):
            paths = {"OS_KEYSTONE_CONFIG_FILES": f"{self.etc}/common.conf;{self.etc}/keystone.conf"}
            paths["OS_PLACEMENT_CONFIG_DIR"] = str(self.etc)
            return [self._service(project, self.host, self.ports[project], environment=paths)]
        if project == "swift":
            return [self._service(f"swift-{kind}", self.etc / f"swift-{kind}.conf") for kind in (*STORAGE, "proxy")]
        if project == "glance":
            return [self._service("glance-api", *files)]
        if project == "neutron":
            return [self._service("neutron-server", *files)]
        if project == "cinder":
            return [self._service(f"cinder-{kind}", *files) for kind in ("api", "scheduler", "volume")]
        databases = ["--config-file", self.etc / "nova-databases.conf"]
        services = [self._service(f"nova-{kind}", *files, *databases) for kind in ("conductor", "scheduler", "api")]
        # the volumes that nova-compute mounts must be seen by libvirtd and its guests
        libvirt = self.processes.alive(f"{self.name}-libvirtd")
        return [*services, self._service("nova-compute", *files, namespace=libvirt)]

    def _service(
        self, kind: str, *arguments: object, environment: dict[str, str] | None = None, namespace: int | None = None
    ) -> dict[str, Any]:
        name = f"{self.name}-{kind}"
        words = [str(argument) for argument in arguments]
        if words[0] == "--config-file":
            words += ["--log-file", str(self.processes.logs / f"{name}.log")]
        return {
            "name": name,
            "kind": kind,
            "arguments": words,
            "environment": environment or {},
            "log": str(self.processes.log(name)),
            "record": str(self.processes.records / name),
            "namespace": namespace,
        }

    def wait(self, project: str) -> None:
        """Wait until a project's API answers."""
        process = {"glance": "glance-api", "neutron": "neutron-server", "nova": "nova-api", "cinder": "cinder-api"}
        process["swift"] = "swift-proxy"
        path = "/healthcheck" if project == "swift" else "/"
        name = f"{self.name}-{process.get(project, project)}"
        self.processes.wait(name, lambda: answers(self.url(project) + path))
