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
    "fsck": ("fsck_scale", "fsck_scale", "what checking dockerd's store costs with 50 images and 500 layers"),
}
