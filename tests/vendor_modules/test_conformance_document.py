"""The list of checks in the documentation is the list of checks."""

from pathlib import Path

from vendor_modules.conformance.checks import CHECKS
from vendor_modules.conformance.document import page

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


def test_page_is_up_to_date() -> None:
    """The page is what ``python -m vendor_modules.conformance.document`` prints."""
    assert PAGE.read_text() == page()


def test_page_has_every_check() -> None:
    """Each check is on the page, by its own name or by that of its family, with its contract."""
    text = page()
    for check in CHECKS:
        name, contract = check.family or (check.name, check.contract)
        assert f"- `{name}`" in text
        assert contract in text
