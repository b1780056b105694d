"""Writes swift's rings of one disk: ``rings.py HOST PORTS FOLDER``. Runs in OpenStack's virtual environment."""

from __future__ import annotations

import json
import sys

from swift.common.ring import RingBuilder

host, ports, folder = sys.argv[1:]
for kind, port in json.loads(ports).items():
    builder = RingBuilder(4, 1, 0)
    place = {"ip": host, "port": port, "replication_ip": host, "replication_port": port}
    builder.add_dev(place | {"id": 0, "region": 1, "zone": 1, "device": "d1", "weight": 1, "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
