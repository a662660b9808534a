"""Connections, and what is kept current for them."""
