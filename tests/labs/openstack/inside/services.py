"""Starts services of one OpenStack project: ``services.py PROJECT``, with a JSON list of services on standard input.

This runs in OpenStack's virtual environment. What takes long when an OpenStack service starts is importing its code, so
the code of a project is imported once, and each service of every cloud is a fork of this process. A service is
``{"name", "kind", "arguments", "environment", "log", "record", "namespace"}``: its output goes to ``log``, its process
id and start time to ``record``; ``namespace`` is the process whose mount namespace it joins, or null.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

PRELOAD = {
    "keystone": ["keystone.server.wsgi", "keystone.server.flask.core", "keystone.api", "waitress", "pymysql"],
    "placement": ["placement.wsgi", "placement.deploy", "waitress", "pymysql"],
    "glance": ["glance.cmd.api", "glance.api.v2.router", "glance.api.versions", "glance_store._drivers.filesystem"],
    "neutron": [
        "neutron.cmd.eventlet.server",
        "neutron.plugins.ml2.plugin",
        "neutron.services.l3_router.l3_router_plugin",
    ],
    "nova": [
        "nova.cmd.api_os_compute",
        "nova.cmd.compute",
        "nova.cmd.conductor",
        "nova.cmd.scheduler",
        "nova.objects",
        "nova.api.openstack.compute.routes",
        "nova.compute.manager",
        "nova.conductor.manager",
        "nova.scheduler.manager",
        "nova.virt.libvirt.driver",
    ],
    "cinder": [
        "cinder.cmd.api",
        "cinder.cmd.scheduler",
        "cinder.cmd.volume",
        "cinder.objects",
        "cinder.api.v3.router",
        "cinder.scheduler.manager",
        "cinder.volume.manager",
        "cinder.volume.drivers.nfs",
    ],
    "swift": ["swift.account.server", "swift.container.server", "swift.obj.server", "swift.proxy.server"],
}
"""What is imported before the first fork, a project each: importing it must start no thread."""
MAIN = {
    "glance-api": "glance.cmd.api",
    "neutron-server": "neutron.cmd.eventlet.server",
    "nova-api": "nova.cmd.api_os_compute",
    "nova-compute": "nova.cmd.compute",
    "nova-conductor": "nova.cmd.conductor",
    "nova-scheduler": "nova.cmd.scheduler",
    "cinder-api": "cinder.cmd.api",
    "cinder-scheduler": "cinder.cmd.scheduler",
    "cinder-volume": "cinder.cmd.volume",
}
CLONE_NEWNS = 0x20000


def main() -> None:
    """Import, then fork."""
    project = sys.argv[1]
    services: list[dict[str, Any]] = json.load(sys.stdin)
    preload(project, services[0]["arguments"])
    gc.freeze()  # so that collecting does not write to, and thereby copy, the memory that all share
    for service in services:
        if os.fork() == 0:
            try:
                enter(service)
                become(service["kind"], service["arguments"])
            finally:
                os._exit(1)


def preload(project: str, arguments: list[str]) -> None:
    """Import a project's code, with a configuration that is forgotten afterwards: the periodic tasks of nova's managers
    are set up by it when they are imported, and without one its scheduler would never look for new hosts."""
    for module in PRELOAD[project]:
        imported = importlib.import_module(module)
        if module.endswith(".objects"):
            imported.register_all()
        if module == "nova.objects":
            importlib.import_module("nova.config").parse_args(["nova", *arguments], configure_db=False, init_rpc=False)
    if project == "nova":
        sys.modules["nova.conf"].CONF.clear()
    if project == "cinder":
        # cinder 26's NFS driver makes no volume from the second snapshot of a volume: it lies on the first one's file,
        # and the check of images made of strangers' bytes, which it is put through, refuses that
        sys.modules["cinder.image.image_utils"].qemu_img_info.__defaults__ = (True, False, True)


def enter(service: dict[str, Any]) -> None:
    """Make this process one of its own: session, output, record, mount namespace."""
    os.setsid()
    output = os.open(service["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for own, wanted in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(own, wanted)
    os.closerange(3, 64)
    started = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    Path(service["record"]).write_text(f"{os.getpid()} {started}")
    os.environ.update(service["environment"])
    if service["namespace"]:
        namespace = os.open(f"/proc/{service['namespace']}/ns/mnt", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(namespace)
    if "eventlet" in sys.modules:
        sys.modules["eventlet"].hubs.use_hub()


def become(kind: str, arguments: list[str]) -> None:
    """Run the service; returns when it ends."""
    sys.argv = [kind, *arguments]
    if kind == "keystone":
        sys.argv = ["keystone"]
        from keystone.server.wsgi import initialize_public_application

        _serve(initialize_public_application(), *arguments)
    elif kind == "placement":
        from placement.wsgi import init_application

        _serve(init_application(), *arguments)
    elif kind.startswith("swift-"):
        _swift(kind.removeprefix("swift-"), *arguments)
    else:
        importlib.import_module(MAIN[kind]).main()


def _serve(application: Any, host: str, port: str) -> None:
    import waitress

    waitress.serve(application, host=host, port=int(port), threads=4, _quiet=True)


def _swift(kind: str, configuration: str) -> None:
    from swift.common import utils
    from swift.common.wsgi import run_wsgi

    utils.set_swift_dir(str(Path(configuration).parent))
    options = {}
    if kind == "object":
        from swift.obj import server

        options = {"global_conf_callback": server.global_conf_callback}
    sys.exit(run_wsgi(configuration, f"{kind}-server", **options))


if __name__ == "__main__":
    main()
