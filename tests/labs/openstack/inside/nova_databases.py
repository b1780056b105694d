"""Makes nova's databases in one process: ``nova_databases.py --config-file FILE …``. Runs in OpenStack's virtual
environment; as four commands of nova-manage it would take four times as long."""

from __future__ import annotations

import sys

from nova import config, objects
from nova.cmd import manage

config.parse_args(["nova-manage", *sys.argv[1:]])
objects.register_all()
manage.ApiDbCommands().sync()
manage.CellV2Commands().map_cell0()
manage.DbCommands().sync()
manage.CellV2Commands().create_cell(name="cell1")
