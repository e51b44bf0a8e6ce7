# SPDX-License-Identifier: MIT
"""Benchmarks behind scripts/bench.

A benchmark measures real parts side by side, in turns, in one run, and gives Figures: what was
measured, what it is compared with, and the bar that the ratio is to keep. A new one is a function
in a module of this package and a line in ``BENCHMARKS``.
"""

# Name -> (module, function, one line of help). A function takes a Run and yields Figures.
BENCHMARKS = {
    "load-durable": ("loads", "load_durable", "what the patches cost: loading an image until it is durable"),
    "direct-load": ("loads", "direct_load", "loading from the store without the stream: bytes written, and time"),
    "linked-load": ("loads", "linked_load", "the same with a stock dockerd, which gets hard links"),
    "install-bytes": ("installs", "install_bytes", "pulling and installing an app: bytes written"),
    "agent-memory": ("agent", "agent_memory", "an update's memory, the commands' start, what stays resident"),
    "pull": ("pulls", "pull_local", "pulling an app of 300 MB from this machine, beside skopeo"),
    "pull-far": ("pulls", "pull_far", "pulling it over a slow and far link, and with packets lost"),
    "pull-killed": ("pulls", "pull_killed", "pulling it, killed 20 times: bytes fetched twice"),
    "update-downtime": ("downtime", "update_downtime", "an update of one of five services: how long that is down"),
    "latency": ("latency", "latency", "a boot and an update with a dockerd that takes 50 ms for each answer"),
    "requests": ("latency", "requests", "what each command asks of dockerd, for up to 50 apps and 100 services"),
    "scale": ("scale", "scale", "how each command's CPU grows with apps, services, files, links …: the exponent"),
    "boot": ("boots", "boots", "a boot at which nothing is to be done: CPU, beside docker compose up -d of one app"),
    "fsck": ("fsck_scale", "fsck_scale", "what checking dockerd's store costs with 50 images and 500 layers"),
}

# The same of those that take a composectl: its path is in Run.composectl.
BESIDE = {
    "beside-pull": ("beside", "beside_pull", "pulling an app of 150 MB over TLS, all of it and half of it"),
    "beside-store": ("beside", "beside_store", "checking and listing a store"),
    "beside-publish": ("beside", "beside_publish", "publishing an app once more"),
    "beside-run": ("beside", "beside_run", "installing, starting, and running with nothing to do"),
}
