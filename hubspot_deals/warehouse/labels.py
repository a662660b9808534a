"""What stands for the ids in a deal: labels of its stage and pipeline, and its owner's address."""

from collections.abc import Iterable
from typing import Final

from psycopg import sql

from hubspot_deals.contract import DATASET_NAME

LABEL_KEYS: Final = "r.dealstage, r.pipeline, r.hubspot_owner_id"
"""The columns of a deal that its labels are found by."""

# Each map is made once per statement; to look a key up takes no time, however many there are.
_LABEL: Final = f"""(
    (SELECT jsonb_object_agg(m.key, m.value) FROM (
        SELECT {{key}} AS key, {{value}} AS value FROM {DATASET_NAME}.{{table}} t
        WHERE t.scan_id = $1 AND t.id IS NOT NULL AND t._dlt_load_id IN (
            SELECT c.load_id FROM hubspot_deals.scan_chunks c
            WHERE c.scan_id = $1 AND c.generation = $2 AND c.table_name = {{name}}
        ) {{groups}}
    ) m) ->> {{wanted}}
)"""

# A stage's id is sure to be its own only inside its pipeline. Where the scan has not read the
# pipelines of deals, the id alone has a label if only one stage has it.
_STAGES: Final = """
    GROUP BY GROUPING SETS ((t.pipeline_id, t.id), (t.id))
    HAVING GROUPING(t.pipeline_id) = 0 OR count(*) = 1
"""
_SOURCES: Final = {
    "dealstage_label": (
        "pipeline_stages",
        "concat(t.pipeline_id, E'\\n', t.id)",
        "min(t.label)",
        _STAGES,
        "concat(r.pipeline, E'\\n', r.dealstage)",
    ),
    "pipeline_label": ("pipelines", "t.id", "t.label", "", "r.pipeline"),
    "owner_email": ("users", "t.id", "t.email", "", "r.hubspot_owner_id"),
}
"""Of each label: its table, that table's key, value and grouping, and the key in a deal."""


def labels_beside(columns: Iterable[str]) -> list[str]:
    """Return the labels that deals of these columns can have: a property keeps its own name."""
    return [name for name in _SOURCES if name not in set(columns)]


def label_of(name: str) -> sql.Composable:
    """Return a label as text; of the same snapshot, scan $1 and generation $2."""
    table, key, value, groups, wanted = _SOURCES[name]
    return sql.SQL(_LABEL).format(
        key=sql.SQL(key),
        value=sql.SQL(value),
        table=sql.Identifier(table),
        name=sql.Literal(table),
        groups=sql.SQL(groups),
        wanted=sql.SQL(wanted),
    )
