"""The agency's REST API, on loopback, for the command line and other programs of the same user."""
