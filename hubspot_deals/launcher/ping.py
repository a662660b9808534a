"""Tell by the exit code whether the run host answers, for health checks of containers."""

import sys

from hubspot_deals.launcher.channel import is_ready
from hubspot_deals.launcher.folder import DagsterHome, LauncherFolder

if __name__ == "__main__":
    sys.exit(0 if is_ready(LauncherFolder.below(DagsterHome().path)) else 1)
