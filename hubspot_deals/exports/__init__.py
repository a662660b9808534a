"""Result files: one process writes one table of a snapshot in one format."""
