"""A provider that libcloud has a driver for, and that has nothing unusual, is one small file."""

import inspect
from pathlib import Path

from vendor_modules.cloudscale import CloudscaleModule
from vendor_modules.module import VendorModule


def test_a_plain_provider_is_one_file_of_60_lines() -> None:
    """The provider's file has at most 60 lines, docstrings and blank ones too."""
    assert len(Path(inspect.getfile(CloudscaleModule)).read_text(encoding="utf-8").splitlines()) <= 60


def test_a_plain_provider_stands_on_the_mixins_alone() -> None:
    """Nothing but the module's own class is outside the interface and the mixins for libcloud: there is no helper file
    that the lines went to."""
    homes = {base.__module__ for base in CloudscaleModule.__mro__[1:] if issubclass(base, VendorModule)}
    shared = ("vendor_modules.libcloud.", "vendor_modules.capabilities", "vendor_modules.module")
    assert homes
    assert all(home.startswith(shared) for home in homes), homes


def test_a_plain_provider_overrides_two_hooks() -> None:
    """What is said in code is how to log in and what to ask for; all else is said by class variables."""
    written = {name for name, value in vars(CloudscaleModule).items() if inspect.isfunction(value)}
    assert written == {"_connect", "_node_arguments"}
