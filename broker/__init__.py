"""Pure decisions: which offers qualify, how good they are, which one to take. No I/O, no clock, no network."""
