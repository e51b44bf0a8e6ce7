# SPDX-License-Identifier: MIT
"""composeapps target as people use it: what they type wrong, pass phrases, two at once, a disk that is full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import composeapps
from composeapps.errors import UsageError
from composeapps.signing import documents as docs
from composeapps.signing import keys
from composeapps.signing.repository import Repository
from signing.conftest import DIGEST, WEB, command

LIB = Path(composeapps.__file__).parents[1]
GOOD = {"--name": "shop", "--hardware": "pc", "--tag": "main", "--app": WEB}


def start(*words, **environment):
    """Start the command in a process of its own, with nobody to ask."""
    return subprocess.Popen([sys.executable, "-B", "-m", "composeapps", "target", *map(str, words)], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": str(LIB), **environment})


@pytest.mark.parametrize("wrong", [
    {"--name": "a/b"}, {"--name": "../up"}, {"--name": ".."}, {"--name": "shop name"}, {"--name": "x" * 101},
    {"--name": "é"}, {"--name": ""}, {"--name": "shop\n"}, {"--version": "0"}, {"--version": "-1"},
    {"--version": str(2**31)}, {"--tag": "a,b"}, {"--tag": "../x"}, {"--hardware": ""}, {"--hardware": "a b"},
    {"--app": "hub.demo.test/factory/web:v1"}, {"--app": "hub.demo.test/factory/web"},
    {"--app": f"user:secret@hub.demo.test/factory/web@{DIGEST}"}, {"--app": f"hub.demo.test/factory/a/b@{DIGEST}"},
    {"--app": f"hub.demo.test/factory/../web@{DIGEST}"}, {"--app": f"hub.demo.test/factory/web@{DIGEST}0"},
    {"--arch": "x/y"}, {"--wave": "nothing"}, {"--wave": "../targets"}], ids=str)
def test_what_cannot_be_is_one_sentence_and_nothing_is_published(factory, wrong):
    before = factory.files()
    words = [word for option in {**GOOD, **wrong}.items() for word in option]
    done = factory.run("create", *[f"{option}={value}" for option, value in zip(words[::2], words[1::2], strict=True)],
                       "--unchecked")
    assert done.status in (2, 3) and done.err.count("\n") == 1 and done.out == "", done.err
    assert "secret" not in done.err and factory.files() == before


def test_a_name_and_a_version_are_used_once(factory):
    factory.create()
    before = factory.files()
    for words, said in ((["--version", "1"], "there is a Target shop-1 already: take version 2"),
                        (["--version", "1", "--name", "other"], "devices could not tell which to take; 2 is free")):
        done = factory.create(*words, run=factory.run)
        assert done.status == 2 and said in done.err and factory.files() == before
    # Devices of other hardware never see both.
    factory.create("--version", "1", "--name", "other", "--hardware", "arm", run=lambda *words: factory.do(
        *[word for at, word in enumerate(words) if word != "pc" and words[at:at + 2] != ("--hardware", "pc")]))
    done = factory.create("--version", "1", "--name", "old", "--tag", "devel")
    assert done.err == ""
    factory.create("--version", "9")
    said = factory.create("--version", "5", "--name", "old").err
    assert "no device that has the newer shop-9 will take old-5" in said


def test_two_creates_at_once_are_two_targets(factory):
    words = ["create", factory.repository, "--keys", factory.keys, "--unchecked", *[w for p in GOOD.items() for w in p]]
    running = [start(*words) for _ in range(3)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    assert {"shop-1", "shop-2", "shop-3"} == set(Repository(factory.repository).read().targets.signed.targets)
    assert factory.device().find("shop-3")


def test_an_app_has_to_be_in_its_registry(factory, registry):
    words = ["--name", "shop", "--hardware", "pc", "--tag", "main", "--endpoint", registry.endpoint]
    before = factory.files()
    for app in (WEB, "hub.demo.test/factory/nothing:v1"):
        done = factory.run("create", *words, "--app", app)
        assert done.status == 3 and "hub.demo.test/factory/" in done.err and factory.files() == before


def test_a_tag_is_pinned_when_it_is_signed(factory, registry):
    from composeapps.oci.reference import parse
    from composeapps.registry.client import RegistryClient, parse_endpoints
    from support import apps, images
    from support.images import multi_platform

    image = multi_platform("signed")
    pinned = images.push_image(registry, "hub.demo.test/signed/x:1", image)
    directory = factory.place / "web"
    directory.mkdir()
    (directory / "docker-compose.yml").write_text(apps.compose_text({"web": pinned}))
    from composeapps.app.publish import publish

    client = RegistryClient(endpoints=parse_endpoints(registry.endpoint))
    done = publish(directory, parse("hub.demo.test/signed/web:v1"), client, checked=False)
    client.close()
    factory.do("create", "--name", "shop", "--hardware", "pc", "--tag", "main", "--app", "hub.demo.test/signed/web:v1",
               "--endpoint", registry.endpoint)
    assert factory.device().find("shop-1")["docker_compose_apps"] == {"web": {"uri": str(done.ref)}}


def test_keys_are_encrypted_and_their_pass_phrase_is_in_no_argument(tmp_path, monkeypatch):
    # What makes guessing slow makes tests slow.
    monkeypatch.setattr(keys, "_ROUNDS", 1000)
    phrase, repository = tmp_path / "phrase", tmp_path / "repo"
    phrase.write_text("a phrase of some length\n")
    done = command("init", repository, "--keys", tmp_path / "keys", "--passphrase-file", phrase)
    assert done.status == 0, done.err
    for path in (tmp_path / "keys").glob("*.pem"):
        assert path.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----") and not path.stat().st_mode & 0o077
        # openssl reads them as well.
        subprocess.run(["openssl", "pkey", "-in", path, "-passin", f"file:{phrase}", "-noout"], check=True)
    before = {path.name: path.read_bytes() for path in repository.iterdir()}
    online = ["renew", repository, "--key", tmp_path / "keys" / "online.pem"]
    wrong, empty = tmp_path / "wrong", tmp_path / "empty"
    wrong.write_text("another phrase\n")
    empty.write_text("\n")
    for words, said in ((["--passphrase-file", wrong], "pass phrase of key"), ([], "no pass phrase for key"),
                        (["--passphrase-file", empty], "is empty"),
                        (["--passphrase-file", tmp_path / "none"], "does not exist")):
        process = start(*online, *words)
        _out, err = process.communicate(timeout=60)
        assert process.returncode in (2, 3) and said in err and err.count("\n") == 1, err
    assert {path.name: path.read_bytes() for path in repository.iterdir()} == before
    # The right one may stand among others, and the environment may name the file.
    wrong.write_text("another phrase\na phrase of some length\n")
    process = start(*online, COMPOSEAPPS_PASSPHRASE_FILE=str(wrong))
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_a_key_is_never_written_over(tmp_path):
    phrase, key = tmp_path / "phrase", tmp_path / "root.pem"
    phrase.write_text("a phrase of some length\n")
    assert command("key", key, "--passphrase-file", phrase).status == 0
    before = key.read_bytes()
    assert command("key", key, "--passphrase-file", phrase).status == 2 and key.read_bytes() == before
    phrase.write_text("short\n")
    done = command("key", tmp_path / "other.pem", "--passphrase-file", phrase)
    assert done.status == 2 and "fewer than 8 characters" in done.err and not (tmp_path / "other.pem").exists()
    done = command("key", tmp_path / "other", "--passphrase-file", phrase)
    assert done.status == 2 and ".pem at its end" in done.err


def test_who_is_asked_types_a_new_phrase_twice(tmp_path):
    answers = iter(["a phrase of some length", "a phrase of some lenght"])
    with pytest.raises(UsageError, match="differ: nothing was made"):
        keys.make(tmp_path / "root.pem", keys.PassPhrases(environ={}, ask=lambda what: next(answers)))
    assert not list(tmp_path.iterdir())


def test_a_key_that_others_can_read_is_refused_unless_it_is_encrypted(factory):
    (factory.keys / "online.pem").chmod(0o644)
    done = factory.run("renew")
    assert done.status == 2 and "others can read it" in done.err


def test_a_key_file_that_is_none_is_told(factory):
    for name, content, status in (("a.pem", b"\0\1", 4), ("b.pub", b"hello", 4), ("c.uri", b"{}", 4),
                                  ("c.uri", b'{"uri": "envvar:X", "public": ""}', 2), ("d.pem", None, 3)):
        path = factory.place / name
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        done = command("renew", factory.repository, "--key", path)
        assert done.status == status and str(path) in done.err or "envvar" in done.err, done.err
        assert done.err.count("\n") == 1
    # A pair of two keys.
    (factory.keys / "online.pub").write_bytes((factory.keys / "targets.pub").read_bytes())
    done = factory.run("create", *[word for option in GOOD.items() for word in option], "--unchecked")
    assert done.status in (2, 4) and done.err.count("\n") == 1


def test_a_key_elsewhere_is_named_by_its_uri(factory):
    """What reaches it is securesystemslib's; without what that needs there is a sentence."""
    uri = factory.place / "module.uri"
    done = command("key", uri, "--uri", "awskms:some-key", "--public", factory.keys / "online.pub")
    assert done.status == 0, done.err
    done = command("renew", factory.repository, "--key", uri)
    assert done.status == 2 and "awskms: cannot be used" in done.err and done.err.count("\n") == 1
    done = command("key", factory.place / "x.uri", "--uri", "file2:/x.pem", "--public", factory.keys / "online.pub")
    assert done.status == 2 and "is no place for keys" in done.err


def test_a_key_elsewhere_that_refuses_is_told(factory):
    """A wrong PIN, or a module that is not plugged in, shows only when it is to sign."""
    class Refusing:
        public_key = keys.find(factory.keys / "online.pem", keys.PassPhrases()).public

        def sign(self, payload):
            raise RuntimeError("PIN incorrect")

    state = Repository(factory.repository).read()
    key = keys.Key("online.uri", Refusing.public_key, Refusing)
    with pytest.raises(UsageError, match="online.uri does not sign timestamp: .*PIN incorrect"):
        docs.sign(state, {"timestamp": docs.next_of(state.timestamp, 7, docs.clock(state))}, [key])


def test_what_a_killed_command_left_goes(factory):
    (factory.repository / ".tmp-timestamp.json-1").write_bytes(b"half")
    factory.create()
    assert not list(factory.repository.glob(".tmp-*"))


@pytest.mark.parametrize("words", [
    ("rotate", "root", "--threshold", "0"), ("rotate", "root", "--threshold", "2"), ("rotate", "root"),
    ("rotate", "nothing", "--add", "new.pem"), ("rotate", "root", "--add", "new.pem", "--remove", "online.pub"),
    ("rotate", "root", "--remove", "root.pub"), ("revoke", "--stolen", "root.pub"), ("revoke", "--stolen", "new.pub"),
    ("revoke",), ("revoke", "shop-1", "--stolen", "root.pub"), ("revoke", "shop-1"), ("promote", "shop-1"),
    ("promote", "shop-1", "--tag", "x"), ("wave", "root", "--wave-key", "new.pem", "--tag", "x"),
    ("wave", "../x", "--wave-key", "new.pem", "--tag", "x"), ("wave", "x", "--wave-key", "new.pem"),
    ("wave", "x", "--tag", "x"), ("wave", "x", "--remove"), ("renew", "--role", "timestamp"),
    ("renew", "--days", "targets=0"), ("renew", "--days", "timestamp=99999"), ("renew", "--days", "what=1"),
    ("show", "../x"), ("init",)], ids=" ".join)
def test_what_makes_no_sense_changes_nothing(factory, words):
    factory.key("new")
    before = factory.files()
    words = [factory.keys / word if word.endswith((".pem", ".pub")) else word for word in words]
    done = factory.run(*words, keys=words[0] != "show")
    assert done.status in (2, 3) and done.err.count("\n") == 1, done.err
    assert factory.files() == before


@pytest.mark.root
def test_a_full_disk_leaves_what_was_published(factory, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
    try:
        for name, content in factory.files().items():
            (place / name).write_bytes(content)
        factory.repository = place
        factory.create()
        with pytest.raises(OSError, match="space"):
            (place / "filler").write_bytes(b"x" * 100_000)
        before = {name: content for name, content in factory.files().items() if name != "filler"}
        done = factory.create(run=factory.run)
        assert done.status == 7 and "the file system is full" in done.err
        assert {name: content for name, content in factory.files().items() if name != "filler"} == before
        assert factory.device().find("shop-1")
        (place / "filler").unlink()
        factory.create()
        assert factory.device().find("shop-2")
    finally:
        subprocess.run(["umount", place], check=True)
