"""Health and statistics of the service."""
