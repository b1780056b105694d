"""Two real OpenStack clouds on one computer, for tests: ``cloud-a`` and ``cloud-b``.

keystone, glance, placement, nova, neutron, cinder and swift of OpenStack 2025.1, as plain processes, with databases of
their own in one MariaDB and virtual hosts of their own in one RabbitMQ; no systemd, no containers. Nova drives libvirt
with qemu under software emulation: real guests, real disks.

A test takes the fixture ``openstack_clouds`` (:mod:`tests.labs.openstack.fixtures`). For development, a lab that stays:
``python -m tests.labs.openstack up STATE``, then ``AGENCY_TEST_OPENSTACK=STATE/clouds.yaml pytest …``.

Limits: guests have no network data plane (neutron's API is real: networks, rules, routers, floating addresses; there is
no DHCP, no NAT, and rules are not enforced). Cinder's NFS driver runs on a loop-mounted ext4 through the shims in
``programs/``, because neither LVM nor NFS can be counted on in a kernel that tests run on.
"""
