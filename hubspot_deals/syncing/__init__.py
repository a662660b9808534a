"""The parts of a sync: what it reads of deals, how that gets into the tables, what it reports."""
