"""Real services that tests start on this computer."""
