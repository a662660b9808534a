"""Pipelines and their stages as rows."""

import asyncio
from decimal import Decimal

import pytest

from hubspot_deals.errors import HubSpotProtocolError
from hubspot_deals.source.arrow import rows_to_arrow
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pipelines import fetch_pipelines, pipeline_rows, stage_rows
from hubspot_deals.tables import PIPELINE_STAGES, PIPELINES

ENDPOINTS = Endpoints.of_version("v3")
STAGE = {
    "id": "closedwon",
    "label": "Won",
    "displayOrder": 5,
    "metadata": {"isClosed": "true", "probability": "1.0"},
}
ACCOUNT = [
    {"id": "default", "label": "Sales", "displayOrder": 0, "stages": [STAGE, {"id": 7}]},
    {"id": "empty", "stages": None},
]


class Answering:
    def __init__(self, answer):
        self.answer = answer

    async def get(self, *_):
        return self.answer


def test_stages_carry_their_pipeline_and_typed_facts():
    stages = rows_to_arrow(PIPELINE_STAGES, stage_rows(ACCOUNT)).to_pylist()
    assert [(row["pipeline_id"], row["id"]) for row in stages] == [
        ("default", "closedwon"),
        ("default", "7"),
    ]
    assert stages[0]["is_closed"] is True
    assert stages[0]["probability"] == Decimal(1)
    assert stages[1]["is_closed"] is None
    pipelines = rows_to_arrow(PIPELINES, pipeline_rows(ACCOUNT)).to_pylist()
    assert [(row["id"], row["display_order"]) for row in pipelines] == [
        ("default", 0),
        ("empty", None),
    ]


@pytest.mark.parametrize("answer", [{}, {"results": None}, {"results": [{"label": "no id"}]}])
def test_an_answer_of_another_shape_is_an_error(answer):
    with pytest.raises(HubSpotProtocolError):
        asyncio.run(fetch_pipelines(Answering(answer), ENDPOINTS))
