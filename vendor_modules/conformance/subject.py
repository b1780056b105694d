"""What is examined: one vendor, and what its author must tell the suite about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from descriptors.machine import MachineManifest
from vendor_modules.module import ModuleSettings, VendorModule
from vendor_modules.resources import UserData
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials, ExternalCredentials, PasswordCredentials

GREETING = "greeting.txt"
GREETING_TEXT = b"hello from the test machine\n"
PROGRAM = "program.py"


def ordinary_user_data() -> UserData:
    """A machine that serves its own files over HTTP, :data:`GREETING` among them."""
    program = Path(__file__).with_name(PROGRAM).read_bytes()
    return UserData(
        files={PROGRAM: program, GREETING: GREETING_TEXT}, manifest=MachineManifest(start=f"python3 {PROGRAM}")
    )


@dataclass(frozen=True)
class Subject:
    """A vendor to examine. The account should be one made for this: what the suite creates there, it removes."""

    module: type[VendorModule]
    settings: ModuleSettings
    credentials: Credentials
    """Right ones; the suite makes wrong ones from them."""
    vendor: str = "examined"
    """The vendor's name in the agency."""
    image: str = "base"
    """The provider's image that machines start from; it must have Python."""
    size: str | None = None
    """The machine size to use; None is the cheapest."""
    user_data: UserData = field(default_factory=ordinary_user_data)
    """What makes the image an ordinary test machine."""
    check_timeout: float = 120.0
    """Seconds that one check may take."""

    def make(self, services: Services) -> VendorModule:
        """A new module for this vendor."""
        return self.module(self.vendor, self.settings, services)

    def secrets(self) -> list[str]:
        """What must not be seen anywhere."""
        return [value.get_secret_value() for _, value in self.credentials if isinstance(value, SecretStr)]


WRONG_SECRET = "this-is-no-secret-of-anybody"  # noqa: S105 - it opens nothing


def wrong(credentials: Credentials) -> Credentials:
    """Credentials of the same kind that are refused: only the secret is another."""
    if isinstance(credentials, ExternalCredentials):
        return PasswordCredentials(username=credentials.username, password=SecretStr(WRONG_SECRET))
    secrets = {name: SecretStr(WRONG_SECRET) for name, value in credentials if isinstance(value, SecretStr)}
    return credentials.model_copy(update=secrets)
