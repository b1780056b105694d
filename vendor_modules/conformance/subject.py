"""What is examined: one vendor, and what its author must tell the suite about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from descriptors.deployment import Kind
from descriptors.machine import MachineManifest
from vendor_modules.conformance.faults import Request, writes
from vendor_modules.conformance.samples import sample
from vendor_modules.module import ModuleSettings, VendorModule
from vendor_modules.resources import DiskFormat, UserData
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials, ExternalCredentials, PasswordCredentials

GREETING = "greeting.txt"
GREETING_TEXT = b"hello from the test machine\n"
PROGRAM = "program.py"
MARKER = "the test machine is up"
"""What an ordinary test machine prints when its service starts."""


def ordinary_user_data() -> UserData:
    """A machine that serves its own files over HTTP, :data:`GREETING` among them, and prints :data:`MARKER`."""
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
    """The provider's image that machines start from; where machines do what user data says, it must have Python."""
    size: str | None = None
    """The machine size to use; None is the cheapest."""
    user_data: UserData = field(default_factory=ordinary_user_data)
    """What makes the image an ordinary test machine; given to machines where the module has first boot."""
    check_timeout: float = 120.0
    """Seconds that one check may take, before ``patience``."""
    patience: float = 1.0
    """All waits of the suite are multiplied by it: more than 1 for a slow cloud."""
    machines_run: bool = True
    """False for an emulator whose machines run nothing: what would have to run in them is then not looked for."""
    credentials_checked: bool = True
    """False for an emulator that lets everybody in."""
    wire: bool = True
    """False where no requests leave, because the provider is a recording: faults cannot be put in between then."""
    unknown_id: str = "there-is-none"
    """An id that never existed, as the provider's ids look."""
    unknown_ids: Mapping[Kind, str] = field(default_factory=dict)
    """The same for kinds of resource whose ids look otherwise."""
    page_size: int = 30
    """How many resources the provider's lists have on a page at most, or as many as the suite should make to see that
    no more than a page is not all."""
    volume_mib: int = 2
    """The size of ordinary volumes: one that the provider has."""
    device: str = "dev/vdb"
    """Where a machine finds the first volume that it is given."""
    writes: Callable[[Request], bool] = writes
    """Tells the requests that create, change or remove something from those that only ask, where the method, the path
    or an ``Action`` do not: see :func:`vendor_modules.conformance.faults.writes`."""
    sample: Callable[[DiskFormat, int], bytes] = sample
    """Makes an image of about so many bytes in a format, which the provider takes."""

    def make(self, services: Services) -> VendorModule:
        """A new module for this vendor."""
        return self.module(self.vendor, self.settings, services)

    def unknown(self, kind: Kind) -> str:
        """An id of that kind that never existed."""
        return self.unknown_ids.get(kind, self.unknown_id)

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
