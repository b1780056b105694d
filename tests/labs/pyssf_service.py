"""A cloud in memory behind pyssf, an OCCI implementation that is not ours (Thijs Metsch's, 2012, OCCI 1.1). Run by
:mod:`tests.labs.pyssf_server` with pyssf on the path; prints its port. All that speaks OCCI here is pyssf's; this file
has its backends, and makes bytes of its text, which Python 2 had no need of."""

import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

from occi.backend import ActionBackend, KindBackend, MixinBackend
from occi.core_model import Mixin
from occi.extensions.infrastructure import (
    COMPUTE,
    NETWORK,
    NETWORKINTERFACE,
    OS_TEMPLATE,
    RESOURCE_TEMPLATE,
    RESTART,
    START,
    STOP,
    STORAGE,
    STORAGELINK,
    SUSPEND,
)
from occi.wsgi import Application


class Compute(KindBackend, ActionBackend):
    """Machines: they run as soon as they are made."""

    def create(self, entity, extras):
        """Make one."""
        entity.attributes["occi.compute.state"] = "active"
        entity.actions = [STOP, RESTART, SUSPEND]

    def action(self, entity, action, attributes, extras):
        """Start or stop one."""
        if action not in entity.actions:
            raise AttributeError("this action is not applicable now")
        starts = action in (START, RESTART)
        entity.attributes["occi.compute.state"] = "active" if starts else "inactive"
        entity.actions = [STOP, RESTART, SUSPEND] if starts else [START]


class Storage(KindBackend, ActionBackend):
    """Volumes."""

    def create(self, entity, extras):
        """Make one."""
        entity.attributes["occi.storage.state"] = "online"


class Network(KindBackend, ActionBackend):
    """Networks."""

    def create(self, entity, extras):
        """Make one."""
        entity.attributes["occi.network.state"] = "active"


class Linked(KindBackend):
    """Links from machines to volumes and networks."""

    def create(self, entity, extras):
        """Make one."""
        entity.attributes["occi.storagelink.state"] = "active"


class Text:
    """A request's body, as text."""

    def __init__(self, stream):
        self._stream = stream

    def read(self, size):
        """So many bytes, decoded."""
        return self._stream.read(size).decode()


class Service(Application):
    """pyssf's application, with bytes outside."""

    def __call__(self, environ, start_response):
        """WSGI."""
        environ["wsgi.input"] = Text(environ["wsgi.input"])
        begun = []
        body = "".join(self._call_occi(environ, lambda *answer: begun.append(answer))).encode()
        status, headers = begun[0]
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]


class Quiet(WSGIRequestHandler):
    """Says nothing."""

    def log_message(self, *_):
        """Say nothing."""


def main():
    """Serve until killed."""
    service = Service()
    for kind, backend in ((COMPUTE, Compute()), (STORAGE, Storage()), (NETWORK, Network())):
        service.register_backend(kind, backend)
        for action in kind.actions if kind is COMPUTE else ():
            service.register_backend(action, backend)
    for kind in (STORAGELINK, NETWORKINTERFACE):
        service.register_backend(kind, Linked())
    templates = (("debian", "os", OS_TEMPLATE), ("small", "resource", RESOURCE_TEMPLATE))
    for term, scheme, related in templates:
        service.register_backend(related, MixinBackend())
        mixin = Mixin(f"http://cloud.example.org/templates/{scheme}#", term, related=[related])
        service.register_backend(mixin, MixinBackend())
    server = make_server("127.0.0.1", 0, service, handler_class=Quiet)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
