"""Connections: HubSpot accounts that are kept current, and the runs that do it."""
