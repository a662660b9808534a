"""Conditions on a scan row, aliased `s`, that several statements share."""

from typing import Final

LEASE_LOCK_CLASS: Final = 4_861
"""First key of every lease's advisory lock; the second is the scan's `seq`."""

HEARTBEAT_SECONDS: Final = 2
LEASE_SECONDS: Final = 12
"""A worker without a sign of life for so long counts as dead, whatever it holds."""

WILL_RESUME: Final = "(s.auto_resumes < s.auto_resume_limit)"

IS_FRESH: Final = f"s.heartbeat_at > now() - interval '{LEASE_SECONDS} seconds'"

LAUNCH_CLAIM_SECONDS: Final = 60
"""How long a launcher has a scan to itself before the sensor takes over."""

LOOK_AGAIN_SECONDS: Final = 15
"""How long a run that Dagster has may wait or start before the sensor looks at it again."""

LOCK_ID: Final = "SELECT pg_advisory_{kind}(4862, hashtext(%s))"
"""Under this lock a scan id is taken, or everything that Dagster has under it is deleted."""

# Advisory locks of two integers show up with objsubid 2; `database` keeps a neighbour's out.
# Where nobody would take over, a worker that is silent may still come back: the lock decides, until
# somebody gives it up.
IS_HELD: Final = f"""(
    s.worker_epoch IS NOT DISTINCT FROM s.epoch AND s.lost_at IS NULL
    AND ({IS_FRESH} OR NOT {WILL_RESUME})
    AND EXISTS (
        SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
        AND l.classid = {LEASE_LOCK_CLASS} AND l.objid = s.seq::oid
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
)"""

IS_VISIBLE: Final = "s.removal IS DISTINCT FROM 'scan'"

IS_UNFINISHED: Final = "s.outcome IS NULL AND s.results_removed_at IS NULL"

LOST_ITS_WORKER: Final = f"""(
    {IS_UNFINISHED} AND s.requested = 'run' AND s.resuming_since IS NULL
    AND s.started_at IS NOT NULL AND NOT {IS_HELD}
)"""
"""The locks are not part of a statement's snapshot, so a worker that ends its scan while a SELECT
runs is seen without outcome and without lock. An UPDATE looks at the row again and is exact."""

HAS_CRASHED: Final = f"({LOST_ITS_WORKER} AND NOT {WILL_RESUME})"
"""The worker is gone, and the scan waits for somebody."""

HAS_ENDED: Final = f"(s.outcome IS NOT NULL OR {HAS_CRASHED})"
