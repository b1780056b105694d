"""OpenStack clouds, and others that speak the same APIs."""
