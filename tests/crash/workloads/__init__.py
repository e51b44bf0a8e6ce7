# SPDX-License-Identifier: MIT
"""What is recorded: each workload a class, found by its name."""

from crash.errors import CrashError
from crash.workloads.agent import AgentWorkloads
from crash.workloads.delivery import DeliveryWorkloads
from crash.workloads.dockerd import DockerdWorkloads
from crash.workloads.repair import Repair
from crash.workloads.userdata import UserDataWorkloads

WORKLOADS = {workload.name: workload for workload in (
    *DockerdWorkloads, *AgentWorkloads, *UserDataWorkloads, *DeliveryWorkloads, Repair)}


def select(names, engine, fsck):
    """Return the Workloads to record.

    Arguments:
        names: their names, or None for all that fit.
        engine: the name of the engine.
        fsck: whether the store is repaired after each cut.

    Raises CrashError for an unknown name or one that does not fit.
    """
    fitting = {name: workload() for name, workload in WORKLOADS.items()
               if engine in workload.engines and (fsck or not workload.repairs)}
    for name in names or ():
        if name not in WORKLOADS:
            raise CrashError(f"there is no workload '{name}'; there are: {', '.join(WORKLOADS)}")
        if name not in fitting:
            raise CrashError(f"the workload '{name}' needs {'fsck' if WORKLOADS[name].repairs else 'another engine'}")
    return [fitting[name] for name in (names or fitting)]
