"""The price catalogue: what machines cost where, offline, every price with its source and date.

It is an SQLite file, built at first use from the price list that libcloud ships and from the files that the user gave
(:meth:`Catalog.update`), and built anew when one of them has changed. Whoever only asks pays for one read of an index.

What it holds, and what it does not:

* Prices are per hour and exact: kept in billionths of the currency's unit, answered as :class:`~decimal.Decimal`.
* A price of 0 in a source means that the source does not know it. It is *unknown*, never free.
* EC2, Azure, GCE, Rackspace, CloudSigma, GoGrid and whatever else is in libcloud's list; libcloud documents all of its
  prices as US dollars an hour, and as estimates. Its older list for each EC2 region is left out: ``ec2_linux`` and the
  like supersede it. EC2 names without a size, such as ``c5``, are dedicated hosts: their cores are unknown.
* Cores and memory are those of libcloud's EC2 list, and for Azure and GCE those that the providers publish
  (:mod:`~vendor_modules.catalog.machine_types`). What is not known is None, never guessed.
* GCE sells cores and memory: the price of a machine type is computed as libcloud does, and says from what.
* *Preemptible* machines (Azure's low priority, GCE's preemptible) may be taken back by the provider at any time.
"""

from __future__ import annotations

from vendor_modules.catalog.catalogue import Answer, Catalog, Price, Query, Updated
from vendor_modules.catalog.errors import BadPriceFile, CatalogueError, NotListed, Unusable

__all__ = [
    "Answer",
    "BadPriceFile",
    "Catalog",
    "CatalogueError",
    "NotListed",
    "Price",
    "Query",
    "Unusable",
    "Updated",
]
