"""The living system: agents, messages, relocation, store, API and command line."""
