"""Whom we are measured beside, each with the options that make it fast: content at site ``a`` comes to site ``b``.

All connections are encrypted. Who knows no holes is given the disk as qcow2, made before the clock runs.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from agency.certificates import certify, new_authority
from benchmarks.transfer_lab.inputs import Content
from benchmarks.transfer_lab.measuring import Run
from benchmarks.transfer_lab.network import Site

SSH_PORT, HTTPS_PORT, WEBDAV_PORT, NBD_PORT = 2222, 8443, 8444, 10809


class Contender(ABC):
    """Somebody who copies. An object is for one run."""

    name: ClassVar[str]
    packages: ClassVar[dict[str, str]]
    """The programs it needs, and the Debian packages they are in."""
    knows_holes: ClassVar[bool] = True

    @classmethod
    def missing(cls) -> dict[str, str]:
        """Programs that are not there, each with its Debian package."""
        return {program: package for program, package in cls.packages.items() if not shutil.which(program)}

    def have(self, run: Run, earlier: Content) -> None:
        """Have an earlier version of the content of that name at the destination, before the clock runs."""
        run.do("b", ["cp", "--sparse=always", str(earlier.path), str(run.destination)])

    @abstractmethod
    def serve(self, run: Run) -> None:
        """Start what has to be there before the clock runs."""

    @abstractmethod
    def copy(self, run: Run) -> None:
        """Bring the contents to the destination, each under its file's name."""


class _OverSsh(Contender):
    """Asked for from ``b``, which an OpenSSH server of the run's own at ``a`` lets in; or the other way round."""

    server: ClassVar[Site] = "a"
    packages: ClassVar = {"sshd": "openssh-server", "ssh-keygen": "openssh-client", "ssh": "openssh-client"}

    def serve(self, run: Run) -> None:
        for name in ("host", "user"):
            run.do(self.server, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(run.scratch / name)])
        configuration = run.scratch / "sshd_config"
        configuration.write_text(
            f"Port {SSH_PORT}\nListenAddress {run.way.address(self.server)}\nHostKey {run.scratch}/host\n"
            f"AuthorizedKeysFile {run.scratch}/user.pub\nAuthenticationMethods publickey\n"
            "PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants an empty folder there, which Debian makes at boot
        key = (run.scratch / "host.pub").read_text()
        (run.scratch / "known_hosts").write_text(f"[{run.way.address(self.server)}]:{SSH_PORT} {key}")
        sshd = shutil.which("sshd") or "sshd"  # it wants its whole path
        run.serve(self.server, [sshd, "-D", "-e", "-f", str(configuration)], SSH_PORT)

    def _options(self, run: Run) -> list[str]:
        options = {
            "IdentityFile": run.scratch / "user",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": run.scratch / "known_hosts",
            "Ciphers": "aes128-gcm@openssh.com",  # the fastest that there is
        }
        return ["-F", "none", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]


class Scp(_OverSsh):
    """Pushes: it fetches each file over a connection of its own, but sends all over one."""

    name = "scp"
    server = "b"
    packages: ClassVar = {**_OverSsh.packages, "scp": "openssh-client"}
    knows_holes = False

    def copy(self, run: Run) -> None:
        files = [str(content.path) for content in run.contents]
        target = f"root@{run.way.address('b')}:{run.destination}"
        run.do("a", ["scp", "-q", "-P", str(SSH_PORT), *self._options(run), *files, target])


class Rsync(_OverSsh):
    """Compressing; where an earlier version is there, it is changed in place."""

    name = "rsync"
    packages: ClassVar = {**_OverSsh.packages, "rsync": "rsync"}

    def copy(self, run: Run) -> None:
        shell = " ".join(["ssh", "-p", str(SSH_PORT), *self._options(run)])
        there = ["--inplace", "--no-whole-file"] if any(run.destination.iterdir()) else []
        options = ["--sparse", "--times", "--compress", "--compress-choice=zstd", "--compress-level=1", *there]
        files = [f"root@{run.way.address('a')}:{content.path}" for content in run.contents]
        run.do("b", ["rsync", "--rsh", shell, *options, *files, str(run.destination)])


class _OverTls(Contender):
    def serve(self, run: Run) -> None:
        shown = certify(new_authority("benchmark"), [run.way.address("a")])
        (run.scratch / "server-cert.pem").write_bytes(shown.certificate)  # names that nbdkit looks for
        (run.scratch / "server-key.pem").write_bytes(shown.key)
        (run.scratch / "ca-cert.pem").write_bytes(shown.authorities)
        for content in run.contents:
            (_root(run) / content.path.name).symlink_to(content.path)


class Curl(_OverTls):
    """From nginx, all contents at once."""

    name = "curl"
    packages: ClassVar = {"nginx": "nginx-light", "curl": "curl"}
    knows_holes = False

    def serve(self, run: Run) -> None:
        super().serve(run)
        places = " ".join(
            f"{each}_temp_path {run.scratch}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration = run.scratch / "nginx.conf"
        configuration.write_text(
            f"daemon off; user root; worker_processes auto; pid {run.scratch}/nginx.pid; events {{}}\n"
            f"http {{ access_log off; {places} sendfile on; server {{\n"
            f"listen {run.way.address('a')}:{HTTPS_PORT} ssl; ssl_protocols TLSv1.3; root {_root(run)};\n"
            f"ssl_certificate {run.scratch}/server-cert.pem; ssl_certificate_key {run.scratch}/server-key.pem; }} }}\n"
        )
        log = str(run.scratch / "nginx.log")
        run.serve("a", ["nginx", "-e", log, "-p", str(run.scratch), "-c", str(configuration)], HTTPS_PORT)

    def copy(self, run: Run) -> None:
        command = [
            "curl",
            "--parallel",
            "--silent",
            "--show-error",
            "--fail",
            "--cacert",
            str(run.scratch / "ca-cert.pem"),
        ]
        for content in run.contents:
            address = f"https://{run.way.address('a')}:{HTTPS_PORT}/{content.path.name}"
            command += ["--output", str(run.destination / content.path.name), address]
        run.do("b", command)


class Nbdcopy(_OverTls):
    """From nbdkit, all contents at once, four connections each, only what is allocated."""

    name = "nbdcopy"
    packages: ClassVar = {"nbdkit": "nbdkit", "nbdcopy": "libnbd-bin"}

    def serve(self, run: Run) -> None:
        super().serve(run)
        options = ["--foreground", "--exit-with-parent", "--readonly", "--tls=require"]
        where = ["--ipaddr", run.way.address("a"), "--port", str(NBD_PORT)]
        certificates = f"--tls-certificates={run.scratch}"
        run.serve("a", ["nbdkit", *options, *where, certificates, "file", f"dir={_root(run)}"], NBD_PORT)

    def copy(self, run: Run) -> None:
        commands = []
        for content in run.contents:
            address = f"nbds://{run.way.address('a')}:{NBD_PORT}/{content.path.name}?tls-certificates={run.scratch}"
            commands.append(["nbdcopy", "--connections=4", address, str(run.destination / content.path.name)])
        run.do("b", *commands)


class Rclone(_OverTls):
    """From its own WebDAV server, four streams."""

    name = "rclone"
    packages: ClassVar = {"rclone": "rclone"}
    knows_holes = False

    def serve(self, run: Run) -> None:
        super().serve(run)
        proof = ["--cert", str(run.scratch / "server-cert.pem"), "--key", str(run.scratch / "server-key.pem")]
        where = ["--addr", f"{run.way.address('a')}:{WEBDAV_PORT}"]
        command = ["rclone", *self._alone(run), "serve", "webdav", "--copy-links", "--read-only", *where, *proof]
        run.serve("a", [*command, str(_root(run))], WEBDAV_PORT)

    def copy(self, run: Run) -> None:
        how = ["--multi-thread-streams", "4", "--multi-thread-cutoff", "64M", "--transfers", "4", "--quiet"]
        where = ["--webdav-url", f"https://{run.way.address('a')}:{WEBDAV_PORT}"]
        proof = ["--ca-cert", str(run.scratch / "ca-cert.pem")]
        run.do("b", ["rclone", *self._alone(run), "copy", *how, *where, *proof, ":webdav:", str(run.destination)])

    def _alone(self, run: Run) -> list[str]:
        return ["--config", str(run.scratch / "rclone.conf"), "--cache-dir", str(run.scratch / "cache")]


PEERS: tuple[type[Contender], ...] = (Scp, Rsync, Curl, Nbdcopy, Rclone)


def _root(run: Run) -> Path:
    """The folder that servers show: links to the contents."""
    folder = run.scratch / "served"
    folder.mkdir(exist_ok=True)
    return folder
