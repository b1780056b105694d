"""The credentials service: secrets encrypted at rest, asked for per vendor, resource class and agreement.

Four kinds, after mOSAIC's Vendor Modules: a private/public key, a user name and password, an access and a secret key,
and *external*: a reference to where something else keeps the secret.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from vendor_modules.errors import Unauthorized


class _Credentials(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyPairCredentials(_Credentials):
    """A private key, and the public key that belongs to it."""

    kind: Literal["key-pair"] = "key-pair"
    public_key: str
    private_key: SecretStr


class PasswordCredentials(_Credentials):
    """A user name and password."""

    kind: Literal["password"] = "password"
    username: str
    password: SecretStr


class AccessKeyCredentials(_Credentials):
    """An access key and its secret key."""

    kind: Literal["access-key"] = "access-key"
    access_key: str
    secret_key: SecretStr


class ExternalCredentials(_Credentials):
    """A reference to a secret kept elsewhere: the name of an environment variable that holds the password for a user
    name. It is read at the moment of use and never stored."""

    kind: Literal["external"] = "external"
    username: str
    variable: str


Credentials = Annotated[
    KeyPairCredentials | PasswordCredentials | AccessKeyCredentials | ExternalCredentials, Field(discriminator="kind")
]
"""Any of the four kinds."""


KINDS: dict[str, type[BaseModel]] = {
    "key-pair": KeyPairCredentials,
    "password": PasswordCredentials,
    "access-key": AccessKeyCredentials,
    "external": ExternalCredentials,
}
"""The four kinds, by name: forms and prompts are made from their fields."""


class CredentialStore(Protocol):
    """Where a module asks for its secrets."""

    async def get(
        self, vendor: str, *, resource: str | None = None, agreement: str | None = None
    ) -> Credentials | None:
        """The most specific credentials: those for the resource class and agreement, else for the agreement, else for
        the resource class, else for the vendor; None if there are none."""

    async def put(
        self, vendor: str, credentials: Credentials, *, resource: str | None = None, agreement: str | None = None
    ) -> None:
        """Keep credentials, encrypted, in place of any for the same scope."""


def resolve(credentials: Credentials | None) -> PasswordCredentials:
    """The user name and password to log in with, an external password read from its environment variable now;
    :class:`~vendor_modules.errors.Unauthorized` when there is none, or they are of a kind that has no password."""
    if isinstance(credentials, PasswordCredentials):
        return credentials
    if not isinstance(credentials, ExternalCredentials):
        given = credentials.kind if credentials else "none"
        raise Unauthorized(f"a user name and password are needed; the credentials given are: {given}")
    password = os.environ.get(credentials.variable)
    if not password:
        raise Unauthorized(
            f"the password of {credentials.username!r} is expected in the environment variable "
            f"{credentials.variable}, which is not set"
        )
    return PasswordCredentials(username=credentials.username, password=SecretStr(password))
