# SPDX-License-Identifier: MIT
"""What the pages say works as it stands: a sample of it is run here, all of it by scripts/run-pages."""

import subprocess

import pytest

from pagerun import clone, run
from support.pages import TOP, Page

SAMPLE = [path for path in run.all_pages()
          if any(block.language in run.LANGUAGES for block in run.blocks(path, sample=True))]


def test_there_is_a_sample_and_more_than_that():
    assert len(SAMPLE) >= 2
    everything = [path for path in run.all_pages() if run.blocks(path, sample=False)]
    assert {"README.md", "app-developer.md", "bsp-engineer.md", "qa.md"} <= {path.name for path in everything}


@pytest.mark.parametrize("path", SAMPLE, ids=[path.name for path in SAMPLE])
def test_what_a_page_says_works_in_a_fresh_clone(path, tmp_path):
    results = run.run(path, clone.make(tmp_path / "clone"), sample=True)
    assert results
    assert [(result.line, result.problem, result.output) for result in results if result.problem] == []


# The runner itself.


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Run a page with a text in an empty directory; return {line: problem} and the directory."""
    def check(text, sample=False):
        path = tmp_path / "page.md"
        path.write_text(text)
        monkeypatch.setattr(run, "page", Page)
        directory = tmp_path / "here"
        directory.mkdir(exist_ok=True)
        return {result.line: result.problem for result in run.run(path, directory, sample)}, directory

    return check


def block(text, mark="", language="sh"):
    return f"{f'<!-- {mark} -->' if mark else ''}\n```{language}\n{text}\n```\n\n"


def test_blocks_share_a_shell_and_files_are_written(page):
    found, directory = page(block("mkdir a\ncd a\nX=3") + block("echo $X", "file: b/run.sh", "text")
                            + block("X=$X bash -c 'export X; bash b/run.sh' > said"))
    assert set(found.values()) == {""} and (directory / "a" / "said").read_text() == "3\n"


def test_each_command_of_a_block_has_to_work(page):
    found, _ = page(block("false\necho on") + block("echo never"))
    assert list(found.values()) == ["its exit status is 1, not 0"]
    assert set(page(block("exit_with() { return $1; }\nexit_with 8", "status: 8"))[0].values()) == {""}
    assert "did not end in time, or ended the shell" in "".join(page(block("exit 0"))[0].values())


def test_what_is_marked_is_left_out(page):
    text = block("touch no", "not run: needs hardware") + block("touch slow", "slow") + block("touch yes")
    for sample, names in ((True, {"yes"}), (False, {"yes", "slow"})):
        _, directory = page(text, sample)
        assert {path.name for path in directory.iterdir()} == names


@pytest.mark.parametrize(("shown", "good"), [
    ("one\ntwo 12 s\nthree", True), ("one\ntwo … s\nthree", True), ("one\n…", True), ("…\nthree", True), ("…", True),
    ("one\n…\nthree", True), ("one\n…\nfour", False), ("one\nthree", False), ("two … s", False), ("", False),
])
def test_what_a_page_shows_is_compared(page, shown, good):
    found, _ = page(block("printf 'one\\ntwo 12 s  \\n'; echo three >&2") + block(shown, "output", "text"))
    assert [not problem for problem in found.values()] == [True, good]


def test_a_page_has_a_home_of_its_own_and_what_it_starts_ends_with_it(page):
    found, directory = page(block("test -z \"$(ls $HOME/.docker 2> /dev/null)\"\nsleep 1000 &\necho $! > pid"))
    assert set(found.values()) == {""}
    state = subprocess.run(["ps", "-o", "stat=", "-p", (directory / "pid").read_text().strip()], capture_output=True,
                           text=True, check=False).stdout
    assert state.strip() in ("", "Z")


def test_a_clone_has_what_is_not_committed_yet(tmp_path):
    made = clone.make(tmp_path / "clone")
    assert (made / "README.md").read_bytes() == (TOP / "README.md").read_bytes() and (made / ".git").is_dir()
    assert (made / "tests" / "docs" / "test_run.py").is_file()
