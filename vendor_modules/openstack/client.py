"""One thread's access to a cloud: keystoneauth for logging in, the service catalogue, the discovery of API versions and
HTTP; the calls are the services' own, as their API references describe them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from vendor_modules.errors import Unauthorized, Unavailable
from vendor_modules.openstack.errors import Refused, refusal
from vendor_modules.openstack.settings import OpenStackSettings
from vendor_modules.services.credentials import AccessKeyCredentials, Credentials, resolve

Json = dict[str, Any]
Plugin = Any
"""An identity plug-in of keystoneauth's: it holds the token, gets a new one in time, and is safe to share."""

COMPUTE, STORAGE, IMAGE, NETWORK, OBJECTS = "compute", "block-storage", "image", "network", "object-store"
_VERSIONS = {COMPUTE: "2", STORAGE: "3", IMAGE: "2", NETWORK: "2"}
"""The major version that is spoken with each service that has several; catalogues seldom name it."""
CHUNK = 1 << 20
LIST_ATTEMPTS = 5


@dataclass(frozen=True)
class Dialect:
    """In what clouds differ that speak the same APIs."""

    compute_version: str | None = "2.61"
    """The compute API's microversion: from it on flavours tell their extra specifications (OpenStack Rocky, 2018). None
    for a cloud from before there were any."""
    page: int = 500
    """How many resources of a list are asked for at once."""
    service_names: Mapping[str, str] = field(default_factory=dict)
    """The name of a service, by its type, where the catalogue has several of the type."""


def plugin_for(settings: OpenStackSettings, credentials: Credentials | None) -> Plugin:
    """How to log in: by user name and password, or by an application credential, which is an access key."""
    url = str(settings.auth_url)
    if isinstance(credentials, AccessKeyCredentials):
        secret = credentials.secret_key.get_secret_value()
        return v3.ApplicationCredential(
            auth_url=url, application_credential_id=credentials.access_key, application_credential_secret=secret
        )
    account = resolve(credentials)
    project = settings.project
    if project is None:
        raise Unauthorized("the settings must name a project; only application credentials have one of their own")
    by_id = re.fullmatch("[0-9a-f]{32}", project)
    return v3.Password(
        auth_url=url,
        username=account.username,
        password=account.password.get_secret_value(),
        user_domain_name=settings.user_domain,
        project_id=project if by_id else None,
        project_name=None if by_id else project,
        project_domain_name=None if by_id else settings.project_domain,
    )


class _PageLost(Exception):
    """The item that a page was to follow is gone."""


class Client:
    """A connection; one thread's own."""

    def __init__(self, settings: OpenStackSettings, timeout: float, dialect: Dialect) -> None:
        """``timeout`` is in seconds, for one HTTP call."""
        self._settings, self._timeout, self.dialect = settings, timeout, dialect
        self._http = requests.Session()
        self._http.trust_env = False  # the settings say whether there is a proxy
        if settings.proxy:
            self._http.proxies = {"http": settings.proxy, "https": settings.proxy}
        self._plugin: Plugin = None
        self._session: Any = None
        self._adapters: dict[str, Any] = {}

    def log_in(self, plugin: Plugin) -> None:
        """Use this identity from now on."""
        if plugin is not self._plugin:
            verify = str(self._settings.ca_file) if self._settings.ca_file else True
            self._session = Session(auth=plugin, session=self._http, verify=verify, timeout=self._timeout)
            self._plugin, self._adapters = plugin, {}

    def close(self) -> None:
        """Close its sockets."""
        self._http.close()

    @property
    def project(self) -> str:
        """The id of the account's project."""
        return str(self._session.get_project_id())

    def _adapter(self, service: str) -> Any:
        if service not in self._adapters:
            version = _VERSIONS.get(service)
            self._adapters[service] = Adapter(
                self._session,
                service_type=service,
                region_name=self._settings.region,
                interface=self._settings.interface,
                min_version=version,
                max_version=f"{version}.latest" if version else None,
                service_name=self.dialect.service_names.get(service),
                default_microversion=self.dialect.compute_version if service == COMPUTE else None,
                # what was sent may have arrived when a connection breaks: only the module knows how to repeat it
                connect_retries=0,
                status_code_retries=0,
            )
        return self._adapters[service]

    def call(self, service: str, method: str, path: str, **options: Any) -> requests.Response:
        """One HTTP call, with a token that is good for a while yet; an answer that is an error is raised."""
        # keystoneauth would log answers whole, the password of a new machine among them
        options |= {"raise_exc": False, "log": False}
        response: requests.Response = self._adapter(service).request(path, method, **options)
        if response.status_code >= 400:
            try:
                raise refusal(response)
            finally:
                response.close()
        return response

    def ask(self, service: str, method: str, path: str, body: Any = None, **options: Any) -> Json:
        """One call whose answer is a JSON object, or nothing."""
        response = self.call(service, method, path, json=body, **options)
        answer = response.json() if response.content else {}
        if not isinstance(answer, dict):
            raise TypeError("the answer is no object")
        return answer

    def get(self, service: str, path: str, **options: Any) -> Json:
        """The JSON object at ``path``."""
        return self.ask(service, "GET", path, **options)

    def all(
        self, service: str, path: str, word: str, params: Mapping[str, Any] | None = None, **options: Any
    ) -> Iterator[Json]:
        """The items of all pages of a list that the answers hold at ``word``, each once. A list that loses the item
        that its next page was to follow is begun anew."""
        seen = set()
        for _ in range(LIST_ATTEMPTS):
            try:
                for item in self._pages(service, path, word, params or {}, options):
                    identity = str(item.get("id") or item)
                    if identity not in seen:
                        seen.add(identity)
                        yield item
            except _PageLost:
                continue
            return
        raise Unavailable(f"the list of {word} changes while it is read")

    def _pages(
        self, service: str, path: str, word: str, params: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Iterator[Json]:
        first = query = {"limit": self.dialect.page} | dict(params)
        while True:
            try:
                answer = self.get(service, path, params=query, **options)
            except Refused as refused:
                if query is not first and refused.status in (400, 404):
                    raise _PageLost from refused
                raise
            yield from answer[word]
            links = {link["rel"]: link["href"] for link in answer.get(f"{word}_links", ())}
            following = links.get("next") or answer.get("next")
            if not following or not answer[word]:
                return
            query = dict(parse_qsl(urlsplit(following).query))  # of the address only this: proxies change the rest

    def find(self, service: str, path: str, word: str, wanted: str, **options: Any) -> Json | None:
        """The item of a list with that id or, if there is none, that name."""
        found = list(self.all(service, path, word, **options))
        matching = [item for item in found if item["id"] == wanted] or [i for i in found if i.get("name") == wanted]
        return matching[0] if matching else None
