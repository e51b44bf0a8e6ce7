# SPDX-License-Identifier: MIT
"""What the demo shows: text, not HTML, and nothing broken in the middle of a word."""

import hostsetup
from demonstration import capture, command, pagetext

PAGE = """<!DOCTYPE html>
<html><head><title>shellhttpd</title><style>p { color: red }</style></head>
<h1>Hello from a restorable compose app</h1>
<p>Served by BusyBox &lt;1.37&gt; in a container
that is called 7da803478c00.</p></html>
"""


def test_a_page_is_its_text():
    assert pagetext.lines(PAGE) == ["Hello from a restorable compose app",
                                    "Served by BusyBox <1.37> in a container that is called 7da803478c00."]
    assert pagetext.lines("Hello from nginx: redis counts visit 1\n") == ["Hello from nginx: redis counts visit 1"]
    assert pagetext.lines("<p>one<p>two<br>three</title>four") == ["one", "two", "threefour"]


def test_on_a_narrow_terminal_paths_stay_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    image = "/somewhere/quite/far/below/build/deploy/composeapps-image-qemux86-64.json"
    command._show({"pages": {"shellhttpd": PAGE}, "steps": [{"step": "building", "seconds": 1.0}], "seconds": 2.0,
                   "image": image})
    shown = capsys.readouterr().out
    assert image in shown.splitlines()
    assert "<h1>" not in shown and "\033" not in shown
    assert "  Served by BusyBox <1.37> in a container that is called 7da803478c00." in shown.splitlines()


def test_the_disk_is_shown_with_what_the_reset_said(capsys):
    parts = [{"name": name, "mountpoint": place, "built_bytes": 3 << 20, "bytes": size << 20}
             for name, place, size in (("boot", "/boot", 3), ("data", "/var", 300))]
    command._show({"disk": {"partitions": parts, "log": ["factory reset done"], "machine_ids": ["a1", "b2", "b2"]},
                   "steps": [], "seconds": 2.0, "image": "/somewhere/image.json"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.split()[:1] == ["data"]] == [["data", "/var", "3", "300"]]
    assert "  factory reset done" in lines
    assert "machine-id a1 before, b2 after it, b2 at the start after that" in lines


def test_the_picture_of_the_pages_is_small_and_of_no_one_machine():
    text = (hostsetup.TOP / "meta-composeapps" / "docs" / "demo.svg").read_text()
    assert len(text) < 100_000
    assert "the&#160;apps" in text and "build/deploy" in text
    assert "@font-face" not in text and "url(http" not in text and "/home" not in text and "/root" not in text


def test_a_picture_has_long_lines_whole(tmp_path):
    recorded = capture.console()
    line = f"web:hub.demo.test/demo/web@sha256:{'0123456789abcdef' * 4}-is-installed"
    recorded.print(f"short\n{line}", soft_wrap=True)
    capture.write(recorded, tmp_path / "demo.svg")
    text = (tmp_path / "demo.svg").read_text()
    assert len(line) > capture.COLUMNS and f">{line}<" in text and ">short<" in text
