"""The proof of a scan, and whether its rows still are what was proved."""
