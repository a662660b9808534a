"""Lets half of the generated requests be about scans that exist; `schemathesis` imports this."""

import zlib

import schemathesis

from tests.fuzz.scans import known_ids

KNOWN = known_ids()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Put a known id where a scan's id is asked for, chosen by the generated one."""
    for name in ("scan_id", "other_scan_id"):
        if path_parameters and name in path_parameters:
            chosen = zlib.crc32(repr(path_parameters[name]).encode())
            if chosen % 2:
                path_parameters[name] = KNOWN[chosen // 2 % len(KNOWN)]
    return path_parameters
