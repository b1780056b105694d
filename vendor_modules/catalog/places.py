"""Where a provider's region is: its area and its jurisdiction, as far as its name tells.

An *area* is a part of the world, with the prefixes that EC2 made common: af, ap (Asia and the Pacific), ca, cn, eu (all
of Europe), me (the Middle East), mx, sa and us. A *jurisdiction* is ``EU`` for its members, else a country's ISO code.
A region that is not told, or a provider that is not known here, has neither.
"""

from __future__ import annotations

import re

_EU = frozenset({"AT", "BE", "DE", "DK", "ES", "FI", "FR", "IE", "IT", "NL", "PL", "SE"})
_AREAS = {
    "af": ("ZA",),
    "ap": ("AU", "HK", "ID", "IN", "JP", "KR", "MY", "NZ", "SG", "TH", "TW"),
    "ca": ("CA",),
    "cn": ("CN",),
    "eu": ("CH", "GB", "NO", *_EU),
    "me": ("AE", "BH", "IL", "QA", "SA"),
    "mx": ("MX",),
    "sa": ("BR", "CL"),
    "us": ("US",),
}
_AREA_OF = {country: area for area, countries in _AREAS.items() for country in countries}

_EC2 = {
    "af-south-1": "ZA", "ap-east-1": "HK", "ap-east-2": "TW", "ap-northeast-1": "JP", "ap-northeast-2": "KR",
    "ap-northeast-3": "JP", "ap-south-1": "IN", "ap-south-2": "IN", "ap-southeast-1": "SG", "ap-southeast-2": "AU",
    "ap-southeast-3": "ID", "ap-southeast-4": "AU", "ap-southeast-5": "MY", "ap-southeast-6": "NZ",
    "ap-southeast-7": "TH", "ca-central-1": "CA", "ca-west-1": "CA", "cn-north-1": "CN", "cn-northwest-1": "CN",
    "eu-central-1": "DE", "eu-central-2": "CH", "eu-north-1": "SE", "eu-south-1": "IT", "eu-south-2": "ES",
    "eu-west-1": "IE", "eu-west-2": "GB", "eu-west-3": "FR", "il-central-1": "IL", "me-central-1": "AE",
    "me-south-1": "BH", "mx-central-1": "MX", "sa-east-1": "BR", "us": "US",
}  # fmt: skip
_GCE = {
    "africa-south1": "ZA", "asia-east1": "TW", "asia-east2": "HK", "asia-northeast1": "JP", "asia-northeast2": "JP",
    "asia-northeast3": "KR", "asia-south1": "IN", "asia-south2": "IN", "asia-southeast1": "SG", "asia-southeast2": "ID",
    "australia": "AU", "europe-central2": "PL", "europe-north1": "FI", "europe-north2": "SE", "europe-southwest1": "ES",
    "europe-west1": "BE", "europe-west2": "GB", "europe-west3": "DE", "europe-west4": "NL", "europe-west6": "CH",
    "europe-west8": "IT", "europe-west9": "FR", "europe-west10": "DE", "europe-west12": "IT", "me-central1": "QA",
    "me-central2": "SA", "me-west1": "IL", "northamerica-northeast1": "CA", "northamerica-northeast2": "CA",
    "northamerica-south1": "MX", "southamerica-east1": "BR", "southamerica-west1": "CL", "us": "US",
}  # fmt: skip
_AZURE = {
    "australia": "AU", "austria": "AT", "belgium": "BE", "brazil": "BR", "canada": "CA", "chile": "CL", "china": "CN",
    "denmark": "DK", "southeastasia": "SG", "eastasia": "HK", "finland": "FI", "france": "FR", "germany": "DE",
    "india": "IN", "indonesia": "ID", "israel": "IL", "italy": "IT", "japan": "JP", "korea": "KR", "malaysia": "MY",
    "mexico": "MX", "newzealand": "NZ", "northeurope": "IE", "norway": "NO", "poland": "PL", "qatar": "QA",
    "southafrica": "ZA", "spain": "ES", "sweden": "SE", "switzerland": "CH", "taiwan": "TW", "uae": "AE", "uk": "GB",
    "usgov": "US", "westeurope": "NL",
}  # fmt: skip
_AZURE_US = re.compile(r"(east|west|central|north|south)+us\d?")
_OTHERS = {
    ("rackspace", "dfw"): "US", ("rackspace", "iad"): "US", ("rackspace", "ord"): "US", ("rackspace", "lon"): "GB",
    ("rackspace", "syd"): "AU", ("rackspace", "hkg"): "HK", ("cloudsigma", "zrh"): "CH", ("cloudsigma", "lvs"): "US",
}  # fmt: skip


def place(provider: str, region: str) -> tuple[str, str]:
    """The area and the jurisdiction of a region; empty where they are not known."""
    country = _country(provider, region)
    if country is None:
        # a region that came after this list: EC2's names still begin with the area
        area = region.split("-")[0] if provider in ("ec2", "outscale-inc", "outscale-sas") else ""
        return (area if area in _AREAS else ""), ""
    return _AREA_OF[country], "EU" if country in _EU else country


def _country(provider: str, region: str) -> str | None:
    if provider == "ec2":
        return _EC2.get(region) or _EC2.get(region.split("-")[0])
    if provider == "gce":
        return _GCE.get(region) or _GCE.get(region.split("-")[0])
    if provider == "azure":
        if _AZURE_US.fullmatch(region):
            return "US"
        return next((country for name, country in _AZURE.items() if name in region), None)
    return _OTHERS.get((provider, region))
