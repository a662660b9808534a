"""The Dagster side of a scan: one module per Dagster noun."""
