"""Describes the pipeline."""

from api.health.probe import Findings
from api.pipeline.schemas import PipelineInfo
from hubspot_deals.contract import DATASET_NAME, SOURCE_NAME


def describe_pipeline(findings: Findings) -> PipelineInfo:
    """Return the pipeline's fixed facts and whether what it needs answers."""
    return PipelineInfo(
        pipeline_name=DATASET_NAME,
        destination_type="postgres",
        working_dir=".dlt",
        dataset_name=DATASET_NAME,
        is_active=findings.database_error is None and findings.dagster_error is None,
        source_type=SOURCE_NAME,
        uses_api_service=True,
        configuration_method="config_file",
        database_health=findings.database_error is None,
        supports_checkpoints=True,
        error=findings.database_error or findings.dagster_error,
    )
