"""Downloads: a table of a completed scan as a file."""
