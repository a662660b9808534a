"""How Dagster starts runs on this machine: forked from a warm host process, with few connections.

`dagster.yaml` names the classes here; Dagster's own ones can take their place.
"""
