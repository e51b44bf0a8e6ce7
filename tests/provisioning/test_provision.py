# SPDX-License-Identifier: MIT
"""scripts/provision: what it writes, that it writes nothing else, what it refuses, lists of devices."""

import csv
import fcntl
import hashlib
import json
import os
import struct
import subprocess

import pytest

from composeapps.disk import area
from composeapps.errors import UsageError
from provisioning import command, given, target

MEBIBYTE = 1 << 20
PLACE = 17 * MEBIBYTE


@pytest.fixture
def provision(capsys):
    """A function that runs the command; returns (exit status, standard output, standard error)."""
    def run(*words):
        status = command.main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def identity(authority, name):
    certificate, key, ca = authority(name)
    return "--device", name, "--cert", certificate, "--key", key, "--ca", ca


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_the_area_is_written_and_the_image_stays(provision, make_image, authority, tmp_path):
    image, made = make_image(), tmp_path / "made.wic"
    before = image.read_bytes()
    status, _out, err = provision(image, *identity(authority, "shop-1"), "--serial", "A1", "--setting", "parallel=4",
                                  "--output", made)
    assert (status, err) == (0, "")
    after = made.read_bytes()
    assert image.read_bytes() == before
    assert after[:PLACE] == before[:PLACE] and after[PLACE + area.SIZE:] == before[PLACE + area.SIZE:]
    found = area.parse(after[PLACE:PLACE + area.SIZE])
    assert (found.device, found.serial, found.settings) == ("shop-1", "A1", "composeapps.parallel = 4\n")
    certificate, key, ca = authority("shop-1")
    assert [found.certificate, found.key, found.authority] == [each.read_text() for each in (certificate, key, ca)]
    # A sparse file stays one, and is for its owner only.
    assert made.stat().st_blocks * 512 < 4 * MEBIBYTE and made.stat().st_mode & 0o777 == 0o600


def test_the_same_device_gives_the_same_bytes_each_way(provision, make_image, authority, tmp_path):
    image = make_image()
    words = (*identity(authority, "shop-1"), "--setting", "soak_time=3", "--setting", "parallel=4")
    others = (*identity(authority, "shop-1"), "--setting", "parallel=4", "--setting", "soak_time=3")
    for name, given_words in (("a", words), ("b", others)):
        assert provision(image, *given_words, "--output", tmp_path / name)[0] == 0
    assert provision(image, *words, "--output", tmp_path / "area", "--area-only")[0] == 0
    assert provision(image, *words, "--in-place")[0] == 0
    assert digest(tmp_path / "a") == digest(tmp_path / "b") == digest(image)
    assert (tmp_path / "area").read_bytes() == image.read_bytes()[PLACE:PLACE + area.SIZE]
    assert (tmp_path / "area").stat().st_mode & 0o777 == 0o600


def test_nothing_of_a_key_is_told(provision, make_image, authority):
    image = make_image()
    key = authority("shop-1")[1].read_text().splitlines()[1]
    said = [provision(image, *identity(authority, "shop-1"), "--in-place", *more) for more in ((), ("--json",))]
    said += [provision(image, "--show", *more) for more in ((), ("--json",))]
    assert all(status == 0 and key not in out + err for status, out, err in said)
    assert json.loads(said[3][1])["holds"] == {"device": "shop-1", "serial": "", "settings": "", "key": True,
                                               "certificate": True, "authority": True, "new_key": False}


@pytest.mark.parametrize("words, said", [
    (("--device", "../x"), "'../x' is none"), (("--device", "x" * 65), "is none"),
    (("--device", "a", "--setting", "no_such=1"), "no setting 'no_such'"),
    (("--device", "a", "--setting", "parallel=many"), "'parallel' is not a number"),
    (("--device", "a", "--setting", "parallel"), "NAME=VALUE"),
    (("--device", "a", "--setting", "state_dir=/x"), "same for all devices"),
    (("--device", "a", "--setting", "parallel=1\nsoak_time = 2"), "'parallel' is not a number"),
    (("--device", "a", "--cert", "/nonexistent"), "/nonexistent cannot be read"),
    (("--device", "a", "--key", "/dev/null"), "no private key in PEM"),
    (("--device", "a", "--key", "/dev/zero"), "no private key in PEM"),
    (("--new-key",), "needs a name"), ((), "nothing to give"),
])
def test_what_is_refused_leaves_the_image_as_it_is(provision, make_image, words, said):
    image = make_image()
    before = digest(image)
    status, _out, err = provision(image, *words, "--in-place")
    assert status == 2 and said in err and err.count("\n") == 1
    assert digest(image) == before


def test_keys_and_certificates_have_to_belong_together(provision, make_image, authority, tmp_path):
    image = make_image()
    certificate, key, ca = authority("shop-1")
    _other, other_key, _ca = authority("shop-2")
    for words, said in (
            (("--device", "shop-1", "--cert", certificate, "--key", other_key), "cannot be used together"),
            (("--device", "shop-2", "--cert", certificate, "--key", key), "not for shop-2"),
            (("--device", "shop-1", "--cert", certificate), "needs its key"),
            (("--device", "shop-1", "--cert", certificate, "--key", key, "--new-key"), "neither a key")):
        status, _out, err = provision(image, *words, "--in-place")
        assert status == 2 and said in err, err
    assert provision(image, "--device", "shop-2", "--cert", certificate, "--key", key, "--any-subject",
                     "--in-place")[0] == 0
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    status, _out, err = provision(image, "--device", "shop-1", "--key", locked, "--in-place", "--replace")
    assert status == 2 and "pass phrase" in err


def test_what_is_no_image_is_named(provision, make_image, tmp_path):
    (tmp_path / "text").write_text("no image")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    old = make_image(name="old.wic", partitions=("boot", "root", "data"))
    short = make_image(name="short.wic")
    os.truncate(short, PLACE + 1000)
    for path, status, said in ((tmp_path / "text", 2, "no disk"), (tmp_path / "x.zst", 2, "zstd"),
                               (tmp_path / "none", 2, "does not exist"), (tmp_path, 2, "directory"),
                               (tmp_path / "pipe", 2, "neither an image nor a disk"),
                               (old, 3, "no partition 'provision'"), (short, 3, "not whole")):
        found, _out, err = provision(path, "--device", "a", "--in-place")
        assert (found, err.count("\n")) == (status, 1) and said in err


def test_a_devices_image_is_no_image_for_others(provision, make_image, authority, tmp_path):
    image = make_image()
    assert provision(image, *identity(authority, "shop-1"), "--in-place")[0] == 0
    before = digest(image)
    for words in (("--output", tmp_path / "x"), ("--in-place",)):
        status, _out, err = provision(image, "--device", "shop-2", *words)
        assert status == 2 and "of the device shop-1" in err and digest(image) == before
    assert provision(image, "--device", "shop-2", "--in-place", "--replace")[0] == 0
    assert provision(image, "--device", "shop-2", "--output", image)[0] == 2


class List:
    def __init__(self, directory):
        self.path, self.made = directory / "devices.csv", directory / "made"

    def write(self, text):
        self.path.write_text(text)

    def report(self, name="report.csv"):
        return list(csv.DictReader((self.made / name).open()))


@pytest.fixture
def listed(tmp_path):
    return List(tmp_path)


@pytest.mark.parametrize("more, suffix", [((), "wic"), (("--area-only",), "area")])
def test_a_list_goes_on_after_a_failure_and_is_gone_on_with(provision, make_image, authority, listed, more, suffix):
    image = make_image()
    files = ",".join(map(str, authority("shop-2")))
    listed.write("device,serial,cert,key,ca,setting:parallel\n"
                 f"shop-1,A1,,,,4\nshop-2,A2,{files},5\nshop-3,A3,{files},\nshop-4,A4,,,,\n")
    words = (image, "--csv", listed.path, "--output", listed.made, "--setting", "soak_time=3", *more)
    status, out, err = provision(*words)
    assert status == 1 and "3 made, 0 there, 1 failed" in out and "devices.csv:4: shop-3" in err
    found = listed.report()
    assert [each["result"] for each in found] == ["made", "made", "failed", "made"]
    assert "not for shop-3" in found[2]["problem"]
    for each in found[:2] + found[3:]:
        data = (listed.made / f"{each['device']}.{suffix}").read_bytes()
        data = data if more else data[PLACE:PLACE + area.SIZE]
        assert hashlib.sha256(data).hexdigest() == each["sha256"] and int(each["offset"]) == PLACE
        assert area.parse(data).serial == each["serial"]
    assert area.parse(data).settings == "composeapps.soak_time = 3\n"
    # One is gone, one is damaged, one was corrected.
    (listed.made / f"shop-1.{suffix}").unlink()
    with open(listed.made / f"shop-4.{suffix}", "r+b") as stream:
        stream.seek(PLACE + 70 if not more else 70)
        stream.write(b"x")
    listed.write(listed.path.read_text().replace(f"A3,{files}", f"A3,{','.join(map(str, authority('shop-3')))}"))
    status, out, err = provision(*words, "--report", listed.made / "again.json")
    assert (status, err) == (0, "")
    assert [each["result"] for each in json.loads((listed.made / "again.json").read_text())] == [
        "made", "there", "made", "made"]
    assert not [path for path in listed.made.iterdir() if path.name.startswith(".tmp")]


def test_images_of_another_build_are_made_anew(provision, make_image, listed):
    listed.write("device\nshop-1\n")
    words = ("--csv", listed.path, "--output", listed.made)
    assert provision(make_image(name="one.wic"), *words)[0] == 0
    assert provision(make_image(name="two.wic"), *words)[0] == 0
    assert [each["result"] for each in listed.report()] == ["made"]


@pytest.mark.parametrize("text, said", [
    ("serial\nA1\n", "'device' is needed"), ("device,no\nshop-1,x\n", "not no"), ("", "'device' is needed"),
    ("device,serial\nshop-1\n", "another number of columns"), ("device\nshop-1,x\n", "another number of columns"),
    ("device\nshop-1\nSHOP-1\n", "stands in line 2, too"), ('device\n"shop\n', "no CSV"),
    ("device,device\na,b\n", "each once"), ("device,serial\n", "names no device"),
    ("device\nshop-1\nshop-1 \n", "stands in line 2, too"),
    ("device,serial\na,1\nb,\nc,\nd,1\n", ":5: the serial number '1' stands in line 2, too"),
])
def test_a_list_that_cannot_be_read_makes_nothing(provision, make_image, listed, text, said):
    listed.write(text)
    status, _out, err = provision(make_image(), "--csv", listed.path, "--output", listed.made)
    assert status == 2 and said in err and not listed.made.exists()


def test_a_list_of_a_spreadsheet_is_read(provision, make_image, listed):
    listed.path.write_bytes('\ufeff"device",serial\r\n"shop-1"," A1 "\r\n'.encode())
    assert provision(make_image(), "--csv", listed.path, "--output", listed.made)[0] == 0
    assert [(each["device"], each["serial"], each["result"]) for each in listed.report()] == [("shop-1", "A1", "made")]


def test_what_another_release_has_written_is_nobodys_to_overwrite(provision, make_image, tmp_path):
    image = make_image()
    content = b'{"device":"shop-9","later":1}'
    with open(image, "r+b") as stream:
        stream.seek(PLACE)
        stream.write(struct.pack("<16sII32s8x", b"composeapps-prov", 2, len(content), hashlib.sha256(content).digest())
                     + content)
    before = digest(image)
    for words in (("--show",), ("--in-place", "--device", "a"), ("--output", tmp_path / "x", "--device", "a")):
        status, _out, err = provision(image, *words)
        assert (status, err.count("\n")) == (4, 1) and "format 2" in err and digest(image) == before
    assert provision(image, "--in-place", "--device", "a", "--replace")[0] == 0


@pytest.mark.parametrize("more", [(), ("--area-only",)])
def test_what_is_no_file_is_not_replaced_by_one(provision, make_image, tmp_path, more):
    os.mkfifo(tmp_path / "pipe")
    status, _out, err = provision(make_image(), "--device", "a", "--output", tmp_path / "pipe", *more)
    assert status == 2 and "is no file" in err and (tmp_path / "pipe").is_fifo()


def test_one_at_a_time_writes_to_an_image(provision, make_image):
    image = make_image()
    before = digest(image)
    with open(image, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        status, _out, err = provision(image, "--device", "a", "--in-place")
    assert status == 2 and "by somebody else" in err and digest(image) == before


def test_what_a_killed_run_left_is_gone_after_the_next(provision, make_image, tmp_path):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    left, living = (tmp_path / f".tmp-a.wic-{process}" for process in (child, os.getppid()))
    left.touch()
    living.touch()
    assert provision(make_image(), "--device", "a", "--output", tmp_path / "a.wic")[0] == 0
    assert not left.exists() and living.exists()


def test_files_of_a_list_are_relative_to_it(provision, make_image, authority, listed):
    for kind, path in zip(("pem", "key"), authority("shop-1"), strict=False):
        (listed.path.parent / f"own.{kind}").write_bytes(path.read_bytes())
    listed.write("device,cert,key\nshop-1,own.pem,own.key\n")
    assert provision(make_image(), "--csv", listed.path, "--output", listed.made)[0] == 0


@pytest.mark.parametrize("words", [
    ("i", "--to", "/dev/x", "--device", "a"), ("--device", "a"), ("i", "--device", "a"),
    ("i", "--device", "a", "--output", "x", "--in-place"), ("i", "--csv", "x", "--in-place"),
    ("i", "--csv", "x", "--output", "y", "--device", "a"), ("i", "--in-place", "--area-only"),
    ("i", "--output", "x", "--report", "y"),
])
def test_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as caught:
        command.parse(list(words))
    assert caught.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_setting_is_toml_or_else_a_text():
    assert given.settings(["parallel=4", 'registry."a.example:5".url=http://b:1', 'callback_program="/x"',
                           "registry.b.proxy=''"]) == (
        "composeapps.parallel = 4\npacman.callback_program = \"/x\"\n"
        "registry.\"a.example:5\".url = \"http://b:1\"\nregistry.b.proxy = ''\n")
    with pytest.raises(UsageError):
        given.settings(["parallel=4", "parallel=5"])


@pytest.mark.root
def test_a_disk_that_was_flashed_is_provisioned_and_no_file_is_taken_for_one(provision, make_image, authority):
    image = make_image()
    before = image.read_bytes()
    assert provision("--to", image, "--device", "shop-1")[0] == 2
    loop = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True,
                          text=True).stdout.strip()
    try:
        assert provision("--to", loop, *identity(authority, "shop-1"))[0] == 0
        status, _out, err = provision("--to", loop, "--device", "shop-2")
        assert status == 2 and "--replace" in err
        assert target.held(loop, target.find(loop)).device == "shop-1"
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
    after = image.read_bytes()
    assert after[:PLACE] == before[:PLACE] and after[PLACE + area.SIZE:] == before[PLACE + area.SIZE:]


@pytest.mark.root
def test_copies_share_their_blocks_where_the_file_system_can(provision, tmp_path, make_image):
    system, place = tmp_path / "xfs", tmp_path / "mounted"
    with open(system, "wb") as stream:
        stream.truncate(320 * MEBIBYTE)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", system], check=True,
                   env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", system, place], check=True)
    try:
        image = place / "shop.wic"
        data = bytearray(make_image().read_bytes())
        data[40 * MEBIBYTE:60 * MEBIBYTE] = os.urandom(20 * MEBIBYTE)
        image.write_bytes(data)
        os.sync()
        free = os.statvfs(place).f_bavail
        for number in range(3):
            _status, out, _err = provision(image, "--device", f"shop-{number}", "--output", place / f"{number}.wic",
                                           "--json")
            assert json.loads(out)["shared"]
        os.sync()
        assert (free - os.statvfs(place).f_bavail) * os.statvfs(place).f_frsize < 4 * MEBIBYTE
    finally:
        subprocess.run(["umount", place], check=True)
