"""Cores and memory of machine types, as published.

EC2's come from libcloud's constants. Azure's and GCE's are in ``machine_types.csv`` beside this file, figures that the
providers publish.

Azure's are those of its resource SKU interface, for retired series as it listed them once. All agree with what
Kubernetes' autoscaler generated from it between 2018 and 2026 (which cuts half GiB off); what that did not know, or
knew in two ways (HB60rs), is left out. The names are without tier and without ``promo``, which change only the price.

GCE's are its predefined types. Computing with them gave Google's published prices of us-central1, that of m1-megamem-96
to 0.2 %. The shared-core types of E2 are left out: they are billed for a part of the cores that they show.
"""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

from vendor_modules.catalog.storage import MACHINE_TYPES

AZURE_TIERS = ("lowpriority", "standard", "basic")
Machines = dict[str, tuple[int, int]]
"""Cores and memory in MiB by the machine type's name."""


def published() -> dict[str, Machines]:
    """The figures of ``machine_types.csv``, by provider."""
    machines: dict[str, Machines] = {}
    with MACHINE_TYPES.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            machines.setdefault(row["provider"], {})[row["name"]] = (int(row["cores"]), int(row["memory_mib"]))
    return machines


def ec2(constants: Path) -> Machines:
    """The figures of libcloud's ``ec2_instance_types.py``, a file of literals; loaded by its path, because importing
    libcloud itself takes longer than all the rest."""
    spec = importlib.util.spec_from_file_location("_ec2_instance_types", constants)
    if spec is None or spec.loader is None:
        raise ImportError(f"{constants} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    types = module.INSTANCE_TYPES
    return {name: (int(facts["extra"]["vcpu"]), int(facts["ram"])) for name, facts in types.items()}


def azure_name(size: str) -> str:
    """The name in the figures of a size in libcloud's price list: ``standardd2v3`` is ``d2v3``."""
    for tier in AZURE_TIERS:
        size = size.removeprefix(tier)
    return size.removesuffix("promo")
