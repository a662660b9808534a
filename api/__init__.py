"""The REST facade: documented endpoints over scans, results and Dagster runs."""
