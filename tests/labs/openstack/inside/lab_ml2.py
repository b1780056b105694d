"""The smallest ML2 mechanism driver: every port binds to a Linux bridge named after its network.

nova (os-vif's linux_bridge plug-in) makes the bridge brq<network id> and libvirt the tap, so guests of one network
share a real layer 2 on this computer and no neutron agent runs. Not enforced: security group rules; not there: DHCP,
NAT. (vif_type "tap" needs even less, but libvirt 9 refuses the tap that nova made: "interface already exists".)
"""

from __future__ import annotations

from typing import Any

from neutron_lib import constants
from neutron_lib.plugins.ml2 import api


class BridgeMechanismDriver(api.MechanismDriver):
    """Binds ports to bridges."""

    def initialize(self) -> None:
        """Nothing to do."""

    @property
    def connectivity(self) -> str:
        """What its ports are part of."""
        return "l2"

    def bind_port(self, context: Any) -> None:
        """Bind the port to the first segment that there is."""
        for segment in context.segments_to_bind:
            details = {"port_filter": True}
            context.set_binding(segment[api.ID], "bridge", details, status=constants.PORT_STATUS_ACTIVE)
            return
