"""What a guest is told at its first boot: the disk labelled ``cidata`` that cloud-init's NoCloud looks for
(https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html)."""

from __future__ import annotations

import importlib
import io

from vendor_modules.errors import Unsupported


def seed(instance: str, hostname: str, user_data: bytes) -> bytes:
    """An ISO 9660 image for that instance; :class:`~vendor_modules.errors.Unsupported` where pycdlib is missing."""
    try:
        pycdlib = importlib.import_module("pycdlib")
    except ImportError as error:
        raise Unsupported("pycdlib is not installed here: pip install 'cloud-agency[libvirt]'") from error
    meta_data = f"instance-id: {instance}\nlocal-hostname: {hostname}\n".encode()
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    for number, (name, content) in enumerate((("meta-data", meta_data), ("user-data", user_data))):
        names = {"rr_name": name, "joliet_path": f"/{name}"}
        iso.add_fp(io.BytesIO(content), len(content), f"/FILE{number}.;1", **names)
    made = io.BytesIO()
    iso.write_fp(made)
    iso.close()
    return made.getvalue()
