"""Results: the tables of a completed scan and their rows."""
