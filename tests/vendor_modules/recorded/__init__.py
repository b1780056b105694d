"""Modules proven by the recordings that libcloud ships."""
