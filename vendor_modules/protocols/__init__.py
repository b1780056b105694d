"""Vendor Modules written from providers' published protocols, a provider a file; none was tried on a live service."""
