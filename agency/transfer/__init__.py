"""The transfer engine: images and volumes between sites, proven, resumable, only what is needed (docs/transfer.md)."""
