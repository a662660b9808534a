"""dlt's process-wide runtime as our programs want it: no telemetry, and errors only in its log."""

import dlt
from dlt.common.runtime.anon_tracker import disable_anon_tracker
from dlt.common.runtime.run_context import active


def configure_dlt_runtime() -> None:
    """Call before the first pipeline of a process; more calls change nothing.

    Naming the first setting already starts dlt's runtime with its defaults (dlt 1.31), so the
    settings have to be applied afterwards, and telemetry, which starts only once, be stopped.
    """
    dlt.config["runtime.dlthub_telemetry"] = False
    # dlt warns for each batch that JSON arrives as Arrow text, which is how it is meant to be.
    dlt.config["runtime.log_level"] = "ERROR"
    active().initialize_runtime()
    disable_anon_tracker()
