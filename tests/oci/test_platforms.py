# SPDX-License-Identifier: MIT
"""Which images a machine runs, and which of several it gets: containerd's rules."""

import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composeapps.errors import CorruptError, UsageError
from composeapps.oci import platforms
from composeapps.oci.platforms import Offer, Platform, host_platform


def chosen(machine, *offers):
    found = Platform.parse(f"linux/{machine}").best([Platform(*f"linux/{o}".split("/")) for o in offers], lambda p: p)
    return [str(platform).removeprefix("linux/") for platform in found]


@pytest.mark.parametrize(("machine", "offers", "order"), [
    ("amd64", "amd64/v3 386 amd64 arm64", "amd64 386"),
    ("amd64/v3", "amd64/v4 amd64 amd64/v2 386", "amd64/v2 amd64 386"),
    ("amd64/v4", "amd64/v1 amd64/v4 amd64/v3", "amd64/v4 amd64/v3 amd64/v1"),
    ("amd64/v2", "amd64/v3 amd64/v4", ""),
    ("386", "amd64 i386", "i386"),
    ("arm/v7", "arm/v5 arm/v8 arm/v6 arm/v7", "arm/v7 arm/v6 arm/v5"),
    ("arm/v6", "arm/v7 arm/v5", "arm/v5"),
    ("arm/v6", "arm/v7 arm/v5 arm", "arm/v5 arm"),
    ("arm/v5", "arm/v6", ""),
    ("arm/v8", "arm/v6 arm", "arm arm/v6"),
    ("arm", "arm/v6 armhf", "armhf arm/v6"),
    ("arm64", "arm/v7 amd64 arm64/v8 arm/v8", "arm64/v8 arm/v8 arm/v7"),
    ("arm64", "arm64/v9 arm64/v8.1", ""),
    ("arm64/v9", "arm64 arm64/v8.5 arm64/v8.6 arm/v7", "arm64/v8.5 arm64 arm/v7"),
    ("arm64/v8.2", "arm64/v8 arm64/v8.1 arm64/v8.3", "arm64/v8.1 arm64/v8"),
    ("aarch64", "arm64", "arm64"),
    ("riscv64", "riscv64 arm64", "riscv64"),
])
def test_what_a_machine_runs_best_first(machine, offers, order):
    assert chosen(machine, *offers.split()) == order.split()


def test_equals_keep_their_order():
    items = [("a", Platform("linux", "arm64", "v8")), ("b", Platform("linux", "arm64"))]
    assert [name for name, _ in Platform("linux", "arm64").best(items, lambda item: item[1])] == ["a", "b"]


def test_another_system_is_another_platform():
    assert not Platform("linux", "amd64").runs(Platform("windows", "amd64"))
    assert Platform("linux", "amd64").runs(Platform("", "amd64")), "configurations of old builders leave it out"


@pytest.mark.parametrize("text", ["amd64", "linux/", "linux/a/b/c", "linux/a b", "linux/\x1b[2J", "linux/" + "a" * 99])
def test_what_is_no_platform(text):
    with pytest.raises(UsageError, match="is not of the form OS/ARCHITECTURE"):
        Platform.parse(text)


@pytest.mark.parametrize("value", [{"os": 3}, {"architecture": ["amd64"]}, {"os": "linux", "architecture": "a\n"},
                                   {"variant": {"v": 7}}, {"os": True}])
def test_odd_words_in_a_document(value):
    with pytest.raises(CorruptError, match="the index names a platform in words that are none"):
        Platform.load(value, "the index")


parts = st.sampled_from(["linux", "amd64", "arm64", "arm", "v1", "v8", "v9", "v9.9", "v8.9", "v0", "v99", "x", "8"])


@given(st.builds(Platform, parts, parts, parts | st.just("")))
def test_choices_end_and_begin_with_the_platform_itself(platform):
    choices = platform.choices()
    assert choices[0] == platform.normal and len(choices) < 120 and len(set(choices)) == len(choices)
    assert all(choice == choice.normal for choice in choices)
    assert platform.runs(platform)


@pytest.mark.parametrize(("machine", "narrow", "expected"), [
    ("aarch64", False, "linux/arm64"), ("aarch64", True, "linux/arm/v8"), ("armv7l", True, "linux/arm/v7"),
    ("armv6l", True, "linux/arm/v6"), ("armv8l", True, "linux/arm/v8"), ("armv5tejl", True, "linux/arm/v5"),
    ("i686", True, "linux/386"), ("x86_64", True, "linux/386"), ("loongarch64", False, "linux/loong64"),
    ("riscv64", False, "linux/riscv64"), ("ppc64le", False, "linux/ppc64le"), ("s390x", False, "linux/s390x"),
    ("mips64", False, "linux/mips64le"), ("mips", True, "linux/mipsle"),
])
def test_the_machine_at_hand(monkeypatch, machine, narrow, expected):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "device", "6.6", "#1", machine)))
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1 if narrow else 2**63 - 1)
    monkeypatch.setattr(sys, "byteorder", "little")
    assert str(host_platform()) == expected


V2 = "pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm"
V3 = f"{V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"


@pytest.mark.parametrize(("flags", "variant"), [
    ("fpu sse2", ""), (V2, "v2"), (V2.replace("popcnt ", ""), ""), (V3, "v3"), (V3.replace("fma ", ""), "v2"),
    (f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl", "v4"), (f"{V3} avx512f", "v3"), (None, ""),
])
def test_the_level_of_an_amd64_processor(monkeypatch, flags, variant):
    text = b"" if flags is None else f"processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t:\n".encode()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "device", "6.6", "#1", "x86_64")))
    monkeypatch.setattr(platforms, "open", lambda *_: io.BytesIO(text), raising=False)
    # A machine has one, so it is asked for once.
    monkeypatch.setattr(platforms, "_read_amd64_level", platforms._read_amd64_level.__wrapped__)
    assert host_platform().variant == variant


@given(st.builds(Platform, st.just("linux"), parts, parts | st.just("")),
       st.lists(st.builds(Platform, st.just("linux") | st.just(""), parts, parts | st.just("")), max_size=8))
def test_an_offer_gives_the_best_of_what_there_is(machine, there):
    items = list(enumerate(there))
    best = machine.best(items, lambda item: item[1])
    assert Offer(items, lambda item: item[1]).best(machine) == (best[0] if best else None)


@pytest.mark.parametrize("arch, features, platform", [
    ("x86_64", "m64 core2", "linux/amd64"), ("aarch64", "aarch64 cortexa72", "linux/arm64"),
    ("i686", "m32 i686", "linux/386"), ("riscv64", "", "linux/riscv64"),
    ("loongarch64", "", "linux/loong64"), ("powerpc64le", "", "linux/ppc64le"),
    ("arm", "arm armv5 thumb dsp", "linux/arm/v5"), ("arm", "arm armv5te", "linux/arm/v5"),
    ("arm", "arm armv6 vfp thumb callconvention-hard", "linux/arm/v6"), ("arm", "", "linux/arm/v7"),
    ("arm", "arm vfp cortexa7 neon vfpv4 armv7ve", "linux/arm/v7"), ("arm", "armv8a crc", "linux/arm/v7"),
    ("arm", "arm armv4 thumb", ""), ("microblaze", "", ""), ("", "", ""),
])
def test_what_yocto_builds_for_has_a_platform(arch, features, platform):
    assert platforms.of_target(arch, features) == platform
