"""The two OpenStack clouds, and a module for each."""

from __future__ import annotations

from tests.labs.openstack.fixtures import openstack_clouds

__all__ = ["openstack_clouds"]
