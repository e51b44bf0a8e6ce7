# SPDX-License-Identifier: MIT
"""What check-layer says about repositories that cannot be had, and how mirrors help. Real git, on this machine."""

import json

import pytest

from layercheck.reach import mirrors_in, premirrored, qualified_name, repositories


def look(check_layer, *arguments):
    """Run a parse of one combination and return the process and its JSON."""
    done = check_layer("--only", "parse", "--combination", "qemux86-64", "--json", *arguments)
    return done, json.loads(done.stdout)


def test_a_url_that_does_not_exist_is_named_with_the_reason_and_a_status_of_its_own(check_layer, upstream, pins,
                                                                                   tmp_path):
    gone = f"file://{tmp_path}/gone"
    extra = pins(**{"meta-gone": {"url": gone, "branch": "main"}})
    done, report = look(check_layer, "--mirrors", upstream.directory, "--with", extra)
    assert done.returncode == report["status"] == 3
    assert report["not_reached"]["qemux86-64"] == [f"not reached: meta-gone ({gone}): '{tmp_path}/gone' does not "
                                                   "appear to be a git repository"]
    assert report["results"][0]["status"] == "unreached"
    # What could be reached is not blamed, and the file that was joined is told.
    assert report["layers"]["qemux86-64"]["bitbake"] == upstream.commits["bitbake"]
    assert report["with"] == [str(extra)]
    assert "meta-gone" in done.stderr and str(extra) in done.stderr


def test_a_commit_that_a_mirror_lacks_is_named(check_layer, upstream, pins):
    upstream.commits["meta-virtualization"] = "0123456789" * 4
    done, report = look(check_layer, "--mirrors", upstream.directory, "--with", pins())
    assert done.returncode == 3
    assert report["not_reached"]["qemux86-64"] == [
        "not reached: meta-virtualization (https://git.yoctoproject.org/meta-virtualization): the pinned commit "
        f"{'0123456789' * 4} is not in its mirror {upstream.directory}/meta-virtualization"]


def test_a_branch_that_is_not_there_is_named(check_layer, upstream, pins):
    extra = pins(**{"meta-other": {"url": f"file://{upstream.directory}/meta-other", "branch": "walnascar"}})
    upstream.add("meta-other")
    done, report = look(check_layer, "--mirrors", upstream.directory, "--with", extra)
    assert done.returncode == 3
    assert "it has no branch or tag 'walnascar'" in report["not_reached"]["qemux86-64"][0]


def test_the_users_git_configuration_counts(check_layer, upstream, pins, tmp_path):
    lines = [f'[url "file://{upstream.directory}/{name}"]\n\tinsteadOf = https://git.{host}/{name}\n'
             for host, names in (("openembedded.org", ("bitbake", "openembedded-core", "meta-openembedded")),
                                 ("yoctoproject.org", ("meta-virtualization",))) for name in names]
    (tmp_path / ".gitconfig").write_text("".join(lines))
    _, report = look(check_layer, "--with", pins())
    assert report["not_reached"] == {}
    assert report["layers"]["qemux86-64"] == upstream.commits


def test_a_kas_file_that_is_wrong_is_a_failure(check_layer, tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text('{"header": {"version": 20}, "machne": "qemux86-64"}')
    done = check_layer("--only", "schema", "--combination", "qemux86-64", "--with", wrong)
    assert done.returncode == 1
    assert "'machne' was unexpected" in done.stderr


def test_all_combinations_pass_the_schema(check_layer):
    done = check_layer("--only", "schema", "--quiet")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--combination", "qemux86"], "no combination is called 'qemux86': did you mean qemux86-64?"),
    (["--only", "pars"], "there is no check 'pars'"),
    (["--mirror", "https://example.com/x"], "--mirror takes URL=PLACE"),
    (["--with", "/nonexistent.yml"], "--with /nonexistent.yml: No such file or directory"),
])
def test_bad_usage_is_one_sentence(check_layer, arguments, sentence):
    done = check_layer(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr


def test_pins_and_defaults_are_read_as_kas_does():
    found = repositories({
        "defaults": {"repos": {"branch": "wrynose"}},
        "repos": {"own": None, "a": {"url": "u"}, "b": {"url": "v", "branch": None, "commit": "1"},
                  "c": {"url": "w", "tag": "t", "branch": None}},
        "overrides": {"repos": {"a": {"commit": "2"}}},
    })
    assert [(one.name, one.commit, one.branch) for one in found] == [
        ("a", "2", "wrynose"), ("b", "1", None), ("c", None, "t")]


def test_kas_premirrors_are_followed():
    lines = "https://git\\.example\\.com/(.*) file:///srv/\\1\nbroken\n"
    assert premirrored("https://git.example.com/a", lines) == "file:///srv/a"
    assert premirrored("https://other.example.com/a", lines) == "https://other.example.com/a"


def test_mirrors_are_found_by_their_names(tmp_path):
    urls = [f"https://git.example.com/x/{name}" for name in ("a", "b", "c", "d")]
    for name in ("a", "b.git", qualified_name(urls[2])):
        (tmp_path / name).mkdir()
    assert mirrors_in(tmp_path, urls) == {urls[0]: f"{tmp_path}/a", urls[1]: f"{tmp_path}/b.git",
                                          urls[2]: f"{tmp_path}/git.example.com.x.c"}
