"""Scans: start, status and list."""
