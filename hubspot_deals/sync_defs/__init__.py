"""The Dagster side of recurring syncs: assets, schedules and sensors for each connection."""
