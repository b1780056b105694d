"""Connections to LXD through pylxd, which is loaded when it is first needed.

A server is reached at its Unix socket, whose owner decides who may, or over HTTPS with a client certificate. The
private key is never written to a disk: OpenSSL, which reads keys from files only, is given one in memory.
"""

from __future__ import annotations

import importlib
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from vendor_modules.errors import ResourceFailed, Unauthorized, Unavailable, Unsupported
from vendor_modules.lxd.errors import by_words, of_status
from vendor_modules.services.credentials import KeyPairCredentials

CALL_SECONDS = 130.0
"""A little more than the module waits: so no thread is lost for longer."""


def sdk() -> Any:
    """The ``pylxd`` package; :class:`~vendor_modules.errors.Unsupported` where it is not installed."""
    try:
        return importlib.import_module("pylxd")
    except ImportError as error:
        raise Unsupported("pylxd is not installed here: pip install 'cloud-agency[lxd]'") from error


class Server:
    """One thread's way to LXD, opened when it is first used."""

    def __init__(self, url: str, fingerprint: str | None, project: str) -> None:
        self._url, self._fingerprint, self.project = url, fingerprint, project
        self._client: Any = None

    def to(self, account: KeyPairCredentials | None) -> Server:
        """Itself, logged in."""
        if self._client is None:
            pylxd = sdk()
            session, endpoint = self._session(account)
            client = pylxd.Client(
                endpoint=endpoint, session=session, timeout=CALL_SECONDS, project=self.project, cert=("", "")
            )
            if client.host_info.get("auth") != "trusted":
                session.close()
                raise Unauthorized("the server does not trust this certificate")
            self._client = client
        return self

    def _session(self, account: KeyPairCredentials | None) -> tuple[Any, str]:
        module = importlib.import_module("pylxd.client")
        if self._url.startswith("/"):
            if not Path(self._url).exists():
                raise Unavailable(f"there is no socket {self._url}")
            endpoint = f"http+unix://{quote(self._url, safe='')}"
            session = module.get_session_for_url(endpoint)
        else:
            endpoint = self._url.rstrip("/")
            session = importlib.import_module("requests").Session()
            session.mount("https://", _adapter(account, self._fingerprint))
        session.trust_env = False  # REQUESTS_CA_BUNDLE would be put in the place of what the settings say
        return session, endpoint

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.api.session.close()
            self._client = None

    @property
    def api(self) -> Any:
        """pylxd's tree of LXD's REST interface."""
        return self._client.api

    def get(self, node: Any, **options: Any) -> Any:
        """What a node tells."""
        return node.get(**options).json()["metadata"]

    def done(self, response: Any) -> dict[str, Any]:
        """Wait for the operation that a response is about; what it tells of itself, or its error."""
        answer = response.json()
        if answer["type"] != "async":
            return answer.get("metadata") or {}
        operation = self.api.operations[answer["metadata"]["id"]]
        ended = self.get(operation.wait)
        if ended["status_code"] >= 400:
            code = ended["status_code"]
            raise by_words(ended["err"], ResourceFailed) if code == 400 else of_status(code, ended["err"])
        return ended.get("metadata") or {}


def _adapter(account: KeyPairCredentials | None, fingerprint: str | None) -> Any:
    """What makes HTTPS connections with our certificate, to the server with that fingerprint and no other."""
    adapters = importlib.import_module("requests.adapters")
    context = ssl.create_default_context()
    if fingerprint:  # which says more than a name and an authority
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if account:
        _load(context, account)

    class Adapter(adapters.HTTPAdapter):  # type: ignore[misc, name-defined]  # the library may not be here
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            options |= {"ssl_context": context}
            if fingerprint:
                options["assert_fingerprint"] = fingerprint
            super().init_poolmanager(*args, **options)

        def cert_verify(self, *_: Any) -> None:
            """The context does it."""

        def build_connection_pool_key_attributes(self, request: Any, *_: Any) -> Any:
            url = urlsplit(request.url)
            return {"scheme": "https", "host": url.hostname, "port": url.port or 443}, {}

    return Adapter()


def _load(context: ssl.SSLContext, account: KeyPairCredentials) -> None:
    file = os.memfd_create("lxd-client")
    try:
        text = f"{account.public_key}\n{account.private_key.get_secret_value()}\n"
        os.write(file, text.encode())
        context.load_cert_chain(f"/proc/self/fd/{file}")
    except (ssl.SSLError, ValueError) as error:
        raise Unauthorized("the certificate and private key are not of the PEM form, or not a pair") from error
    finally:
        os.close(file)
