"""Deal pipelines and their stages: the names and the order behind `pipeline` and `dealstage`."""

from collections.abc import Iterable, Mapping
from typing import Any

from hubspot_deals.source.client import HubSpotClient
from hubspot_deals.source.endpoints import Endpoints
from hubspot_deals.source.pages import results_of


async def fetch_pipelines(client: HubSpotClient, endpoints: Endpoints) -> list[dict[str, Any]]:
    """Return the deal pipelines with their stages."""
    return results_of(await client.get(endpoints.pipelines))


def pipeline_rows(pipelines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the `pipelines` table."""
    return [_shared_columns(pipeline) for pipeline in pipelines]


def stage_rows(pipelines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the `pipeline_stages` table. HubSpot keeps stage facts as texts."""
    return [
        _shared_columns(stage)
        | {
            "pipeline_id": str(pipeline["id"]),
            "is_closed": (stage.get("metadata") or {}).get("isClosed"),
            "probability": (stage.get("metadata") or {}).get("probability"),
            "metadata": stage.get("metadata"),
        }
        for pipeline in pipelines
        for stage in pipeline.get("stages") or []
    ]


def _shared_columns(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(item["id"]),
        "label": item.get("label"),
        "display_order": item.get("displayOrder"),
        "archived": item.get("archived"),
        "created_at": item.get("createdAt"),
        "updated_at": item.get("updatedAt"),
    }
