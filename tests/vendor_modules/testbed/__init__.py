"""The Portable Testbed Cluster."""
