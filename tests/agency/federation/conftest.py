"""Agents on a link, a store and a site: as the tests of messaging have them."""

from __future__ import annotations

from tests.agency.messaging.conftest import blank, hire, key, link, site, store

__all__ = ["blank", "hire", "key", "link", "site", "store"]
