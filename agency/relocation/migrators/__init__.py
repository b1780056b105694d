"""The Migrators: plug-ins that each do one task of a relocation and know how to undo it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from agency.relocation.migrators import content, machines, network, service, storage
from agency.relocation.migrators.base import Migrator

GROUP = "cloud_agency.migrators"

_OURS: tuple[type[Migrator], ...] = (
    network.CreateKeyPair,
    network.CreateSecurityGroup,
    network.CreateAddress,
    storage.CreateVolume,
    storage.CreateBucket,
    storage.CreateAccessKey,
    machines.FenceMachine,
    machines.StopMachine,
    machines.BundleMachine,
    machines.BundleVolume,
    content.Fetch,
    content.Adapt,
    content.UploadMachine,
    content.UploadVolume,
    machines.LaunchMachine,
    machines.VerifyMachine,
    service.Publish,
    service.Switch,
    service.ReleaseSource,
    service.ReleaseTemporary,
)


@cache
def migrators() -> dict[str, Migrator]:
    """All Migrators by name: ours, and those installed as entry points, which may replace ours."""
    found: list[type[Migrator]] = [*_OURS, *(point.load() for point in entry_points(group=GROUP))]
    return {migrator.name: migrator() for migrator in found}
