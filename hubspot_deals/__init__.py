"""HubSpot deals into PostgreSQL: the pipeline, its Dagster definitions and its command line."""
