"""Scans: start, follow, list, pause, resume, cancel and remove them."""
