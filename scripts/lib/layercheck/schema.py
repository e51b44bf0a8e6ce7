# SPDX-License-Identifier: MIT
"""The kas files against kas's schema, joined as in each combination."""

import time

from layercheck.errors import CheckError
from layercheck.results import Result, Status


def run(context, combination):
    """Let kas join the files of ``combination``; returns one Result."""
    started = time.monotonic()
    try:
        with context.progress.step(f"schema: {combination.name}"):
            config = context.kas.dump(combination)
    except CheckError as err:
        return Result("schema", combination.name, Status.FAILED, "kas refuses the files", time.monotonic() - started,
                      problems=[str(err)])
    layers = sum(1 for repository in config["repos"].values()
                 for state in ((repository or {}).get("layers") or {".": None}).values() if state != "disabled")
    return Result("schema", combination.name, Status.PASSED,
                  f"{config['machine']}, {config['distro']}, {layers} layers", time.monotonic() - started,
                  {"layers": layers})
