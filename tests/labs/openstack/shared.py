"""What both clouds share: one MariaDB and one RabbitMQ, each cloud with databases and a virtual host of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from tests.labs.openstack.installation import SEARCH
from tests.labs.openstack.processes import Processes, free_port, listens

PASSWORD = "lab-secret"
"""Of every account in the lab."""
DATABASE_PORT, MESSAGE_PORT = 20306, 20672


class Shared:
    """The two servers, at an address of the loopback network that is this lab's alone."""

    def __init__(self, state: Path, host: str, processes: Processes) -> None:
        self.state, self.host, self.processes = state, host, processes
        self.data = state / "mysql/data"
        self._socket = state / "mysql/s.sock"

    def database(self, name: str) -> str:
        """The URL of a database."""
        return f"mysql+pymysql://os:{PASSWORD}@{self.host}:{DATABASE_PORT}/{name}?charset=utf8"

    def messages(self, host: str) -> str:
        """The URL of a virtual host."""
        return f"rabbit://openstack:{PASSWORD}@{self.host}:{MESSAGE_PORT}/{host}"

    # --- MariaDB ---

    def start_database(self) -> bool:
        """Start it; says whether it is new, and empty."""
        new = not self.data.exists()
        if new:
            self.data.mkdir(parents=True)
            install = ["mariadb-install-db", "--no-defaults", "--user=root", "--skip-test-db", f"--datadir={self.data}"]
            options = ["--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"]
            self.processes.run("mariadb-install", [*install, *options])
        # nothing here must outlast a crash, so nothing is written through to the disk
        options = {
            "user": "root",
            "datadir": self.data,
            "socket": self._socket,
            "pid-file": self.state / "mysql/pid",
            "bind-address": self.host,
            "port": DATABASE_PORT,
            "max-connections": 2000,
            "character-set-server": "utf8mb3",
            "innodb-buffer-pool-size": "128M",
            "innodb-log-file-size": "16M",
            "innodb-flush-method": "nosync",
            "innodb-flush-log-at-trx-commit": 0,
            "innodb-doublewrite": 0,
            "performance-schema": 0,
            "skip-log-bin": 1,
            "skip-name-resolve": 1,
        }
        command = ["mariadbd", "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]
        self.processes.start("mariadb", command)
        self.processes.wait("mariadb", lambda: listens(self.host, DATABASE_PORT))
        if new:
            self.sql(f"CREATE USER os@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO os@'%';")
        return new

    def stop_database(self) -> None:
        """End it; its files are whole."""
        self.processes.stop(["mariadb"])

    def sql(self, text: str, database: str = "") -> None:
        """Run statements."""
        self._client("mariadb", *([database] if database else []), given=text)

    def copy_database(self, source: str, target: str, replaced: dict[str, str]) -> None:
        """Fill a database with the content of another, some texts in it replaced."""
        text = self._client("mariadb-dump", source)
        for old, new in replaced.items():
            text = text.replace(old, new)
        self.sql(f"SET foreign_key_checks=0; {text}", target)

    def _client(self, program: str, *arguments: str, given: str = "") -> str:
        command = [program, "--no-defaults", "--user=root", f"--socket={self._socket}", *arguments]
        environment = self.processes.environment
        done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")
        return done.stdout

    # --- RabbitMQ ---

    def start_messages(self, hosts: list[str]) -> None:
        """Start it with these virtual hosts."""
        home = self.state / "rabbit"
        for folder in ("mnesia", "log", "home"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        (home / "definitions.json").write_text(json.dumps(_definitions(hosts)))
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {self.host}:{MESSAGE_PORT}\n"
            f"load_definitions = {home}/definitions.json\n"
            "log.console = false\nvm_memory_high_watermark.relative = 0.3\ndisk_free_limit.absolute = 50MB\n"
        )
        (home / "enabled_plugins").write_text("[].\n")
        names = free_port("127.0.0.1")
        environment = {
            "HOME": f"{home}/home",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": f"{names}",
            "RABBITMQ_NODENAME": "lab@localhost",
            "RABBITMQ_DIST_PORT": f"{free_port('127.0.0.1')}",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            # one scheduler, and no busy waiting: both computers' cores are needed for other things
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +S 1:1 "
            "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        epmd = shutil.which("epmd", path=SEARCH) or "epmd"
        self.processes.start("epmd", [epmd, "-port", f"{names}", "-address", "127.0.0.1"], **environment)
        self.processes.start("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], **environment)
        self.processes.wait("rabbitmq", lambda: listens(self.host, MESSAGE_PORT))


def _definitions(hosts: list[str]) -> dict[str, object]:
    salt = b"salt"
    digest = base64.b64encode(salt + hashlib.sha256(salt + PASSWORD.encode()).digest()).decode()
    user = {"name": "openstack", "password_hash": digest, "hashing_algorithm": "rabbit_password_hashing_sha256"}
    allowed = {"user": "openstack", "configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [user | {"tags": ""}],
        "vhosts": [{"name": host} for host in hosts],
        "permissions": [allowed | {"vhost": host} for host in hosts],
    }
