"""Whom the agency believes, and what it can prove: keys, signed documents, trusted sites. See docs/trust.md."""
