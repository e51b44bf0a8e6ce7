# SPDX-License-Identifier: MIT
"""What the agent costs a device besides its work: memory of an update, the start of each command, rest."""

import statistics

from bench.agentrun import Agent
from bench.disk import disk
from bench.figures import Figure
from bench.hub import hub
from bench.loads import MOUNTPOINT, engine_of
from composeapps.cli.main import COMMANDS
from support.engine import DockerDaemon

MIB = 1024 * 1024
# What each command is started with: as much as it takes to load all that it needs, and little to do.
_NOTHING = "hub.example.com/factory/nothing@sha256:" + "0" * 64
_ARGUMENTS = {
    "show": ["web"], "check": ["web"], "install": ["nothing"], "run": ["nothing"], "stop": ["nothing"],
    "rollback": ["nothing"], "allow": [_NOTHING], "prune": ["--dry-run"], "rm": ["nothing"],
    "ls": [], "ps": [], "status": [], "history": [], "update": [], "version": [],
}


def agent_memory(run):
    """Start each command with a small app in a real dockerd, update that by 200 MB, and look what is left behind."""
    with hub(run) as running, disk(run.scratch, MOUNTPOINT) as place:
        root, dockerd = engine_of("patched", run.progress)
        daemon = DockerDaemon(root, place.root, dockerd=dockerd, env={"DOCKER_LOAD_ROOTS": str(place.root / "store")})
        with daemon:
            agent = Agent(place.root, daemon, running.endpoints)
            agent.run("update", str(running.small))
            # Before the large version comes: what a command does with that is no part of its start.
            with run.progress.step("starting each command"):
                bare = [agent.bare_seconds() for _ in range(max(run.rounds, 3))]
                yield Figure("Python's own start, part of the following", statistics.median(bare), "s")
                for command in COMMANDS:
                    argv = [command, *_ARGUMENTS.get(command, ["--help"])]
                    agent.seconds(*argv)
                    taken = [round(agent.seconds(*argv), 3) for _ in range(max(run.rounds, 3))]
                    yield Figure(f"start of {' '.join(argv[:1])}", statistics.median(taken), "s", bar=0.15,
                                 samples={command: taken})
            with run.progress.step("updating"):
                peaks = agent.peaks("update", str(running.large))
            yield Figure("peak memory of an update", peaks.own / MIB, "MiB", bar=64)
            yield Figure("the same of docker compose, which it starts", peaks.children / MIB, "MiB")
            yield Figure("processes at rest", agent.left(), "", bar=0)
            agent.run("stop", "web")
