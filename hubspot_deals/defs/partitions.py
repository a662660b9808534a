"""A scan is a partition: one key for each scan that was accepted."""

import dagster as dg

from hubspot_deals.contract import SCANS_PARTITIONS

scans_partitions = dg.DynamicPartitionsDefinition(name=SCANS_PARTITIONS)
