"""The Portable Testbed Cluster: a small, honest cloud for a desktop, and the Vendor Module that talks to it.

The cloud is a process of its own (``python -m vendor_modules.testbed serve``) with an HTTP API on the loopback
interface. Nothing is pretended: its machines are running processes, its volumes files, its addresses listening sockets.
The module (:mod:`vendor_modules.testbed.module`) knows the cloud by its URL only.
"""
