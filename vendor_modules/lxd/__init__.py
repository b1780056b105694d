"""The Vendor Module ``lxd``: system containers of an LXD server."""
