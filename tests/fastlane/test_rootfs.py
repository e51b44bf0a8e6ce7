# SPDX-License-Identifier: MIT
"""Putting a root together from trees: packages split, files replaced, units enabled."""

import json
import os
import types

import pytest

from fastlane import base as bases
from fastlane import packaging, rootfs, services, trees
from fastlane.base import Base
from fastlane.errors import BuildError


class Store(dict):
    """As much of a data store as the functions here read."""

    def getVar(self, name):
        return self.get(name)


def _recipe(root, **variables):
    d = Store({"D": str(root), **variables})
    return types.SimpleNamespace(pn="hello", packages=d["PACKAGES"].split(), d=d)


def _tree(root, *paths):
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path)
    return root


def test_files_go_to_the_first_package_that_wants_them(tmp_path):
    root = _tree(tmp_path / "D", "usr/bin/tool", "usr/share/doc/tool/a", "etc/tool.conf")
    recipe = _recipe(root, PACKAGES="hello-doc hello", **{
        "FILES:hello-doc": "/usr/share/doc", "FILES:hello": "/usr/bin/* /usr/share /etc"})
    split = packaging.split(recipe)
    assert "usr/share/doc/tool/a" in split["hello-doc"]
    assert "usr/share/doc/tool/a" not in split["hello"]
    assert {"usr/bin/tool", "etc/tool.conf"} <= split["hello"]


def test_a_file_in_no_package_is_an_error(tmp_path):
    root = _tree(tmp_path / "D", "opt/stray")
    with pytest.raises(BuildError, match=r"/opt/stray is in no package: add it to FILES:hello"):
        packaging.split(_recipe(root, PACKAGES="hello", **{"FILES:hello": "/usr/bin/*"}))


def test_an_install_script_is_refused(tmp_path):
    root = _tree(tmp_path / "D", "usr/bin/tool")
    with pytest.raises(BuildError, match="pkg_postinst"):
        packaging.split(_recipe(root, PACKAGES="hello", **{"FILES:hello": "/usr", "pkg_postinst:hello": "ldconfig"}))


def test_files_are_replaced_so_that_the_base_stays_as_it_was(tmp_path):
    base = _tree(tmp_path / "base", "usr/bin/tool", "etc/conf")
    package = _tree(tmp_path / "D", "usr/bin/tool")
    (package / "usr/bin/tool").write_text("new")
    os.chmod(package / "usr/bin/tool", 0o700)
    before = trees.fingerprint(base)
    trees.link_tree(base, tmp_path / "root", private=("etc",))
    assert os.path.samefile(base / "usr/bin/tool", tmp_path / "root/usr/bin/tool")
    (tmp_path / "root/etc/conf").write_text("written in place")
    trees.lay_over(package, ["usr/bin/tool"], tmp_path / "root")
    assert (tmp_path / "root/usr/bin/tool").read_text() == "new"
    assert os.stat(tmp_path / "root/usr/bin/tool").st_mode & 0o777 == 0o700
    assert trees.fingerprint(base) == before


@pytest.mark.root
def test_a_cache_on_a_file_system_of_its_own_is_copied_from(tmp_path, small_disk):
    base = _tree(small_disk / "base", "usr/bin/tool", "etc/conf")
    os.chown(base / "usr/bin/tool", 7, 8)
    os.chmod(base / "usr/bin/tool", 0o4711)
    os.setxattr(base / "usr/bin/tool", "trusted.told", b"yes")
    os.utime(base / "usr/bin/tool", ns=(1, 2_000_000_001))
    (base / "dev").mkdir()
    os.mknod(base / "dev/null", 0o20666, os.makedev(1, 3))
    (base / "usr/bin/other").symlink_to("tool")
    before = trees.fingerprint(base)
    root = tmp_path / "root"
    trees.link_tree(base, root, private=("etc",))
    tool = os.stat(root / "usr/bin/tool")
    assert (tool.st_uid, tool.st_gid, tool.st_mode & 0o7777, tool.st_mtime_ns) == (7, 8, 0o4711, 2_000_000_001)
    assert os.getxattr(root / "usr/bin/tool", "trusted.told") == b"yes"
    assert os.readlink(root / "usr/bin/other") == "tool" and (root / "usr/bin/tool").read_text() == "usr/bin/tool"
    assert os.stat(root / "dev/null").st_rdev == os.makedev(1, 3) and (root / "dev/null").is_char_device()
    trees.publish_deploy(root / "usr", small_disk / "deploy", tmp_path / "state")
    assert (small_disk / "deploy/bin/tool").read_text() == "usr/bin/tool"
    assert trees.fingerprint(base) == before


def test_a_base_that_was_written_into_is_not_used_again(tmp_path):
    base = Base("k", tmp_path / "base-k")
    _tree(base.tree, "usr/lib/os-release")
    (base.directory / "files.json").write_text(json.dumps(trees.fingerprint(base.tree)))
    bases.check(base)
    trees.link_tree(base.tree, tmp_path / "root")
    with open(tmp_path / "root/usr/lib/os-release", "a") as stream:
        stream.write("more")
    with pytest.raises(BuildError, match="wrote into /usr/lib/os-release"):
        bases.check(base)
    assert not base.directory.exists()


def test_a_file_over_a_directory_is_an_error(tmp_path):
    base = _tree(tmp_path / "root", "usr/lib/x/y")
    package = _tree(tmp_path / "D", "usr/lib/x")
    with pytest.raises(BuildError, match="/usr/lib/x is a file in a package and a directory"):
        trees.lay_over(package, ["usr/lib/x"], base)


def _unit(root, name, install):
    path = root / "usr/lib/systemd/system" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[Service]\nExecStart=/bin/true\n[Install]\n{install}\n")


def test_units_are_enabled_as_their_install_section_says(tmp_path):
    _unit(tmp_path, "a.service", "WantedBy=multi-user.target graphical.target\nAlias=b.service\nAlso=c.socket")
    _unit(tmp_path, "c.socket", "RequiredBy=sockets.target")
    _unit(tmp_path, "t@.service", "WantedBy=getty.target")
    services.enable(tmp_path, "a.service")
    services.enable(tmp_path, "t@x.service")
    system = tmp_path / "etc/systemd/system"
    links = {str(path.relative_to(system)): os.readlink(path) for path in system.rglob("*") if path.is_symlink()}
    units = "/usr/lib/systemd/system"
    assert links == {
        "multi-user.target.wants/a.service": f"{units}/a.service",
        "graphical.target.wants/a.service": f"{units}/a.service",
        "b.service": f"{units}/a.service",
        "sockets.target.requires/c.socket": f"{units}/c.socket",
        "getty.target.wants/t@x.service": f"{units}/t@.service",
    }


@pytest.mark.parametrize(("action", "target"), [("enable", "/usr/lib/systemd/system/a.service"), ("disable", None)])
def test_auto_enable_decides(tmp_path, action, target):
    _unit(tmp_path, "a.service", "WantedBy=multi-user.target")
    recipe = _recipe(tmp_path, PACKAGES="hello", SYSTEMD_PACKAGES="hello", SYSTEMD_AUTO_ENABLE=action,
                     **{"SYSTEMD_SERVICE:hello": "a.service"})
    services.apply(recipe, "hello", tmp_path)
    link = tmp_path / "etc/systemd/system/multi-user.target.wants/a.service"
    assert (os.readlink(link) if link.is_symlink() else None) == target


def test_a_unit_that_is_not_installed_is_an_error(tmp_path):
    recipe = _recipe(tmp_path, PACKAGES="hello", SYSTEMD_PACKAGES="hello", SYSTEMD_AUTO_ENABLE="enable",
                     **{"SYSTEMD_SERVICE:hello": "ghost.service"})
    with pytest.raises(BuildError, match=r"ghost\.service"):
        services.apply(recipe, "hello", tmp_path)


@pytest.mark.parametrize(("features", "password", "autologin"), [
    ([], "*", False),
    (["empty-root-password"], "", False),
    (["serial-autologin-root"], "*", False),
    (["empty-root-password", "serial-autologin-root"], "", True),
])
def test_root_gets_in_only_as_the_image_features_say(tmp_path, features, password, autologin):
    _tree(tmp_path, "etc/shadow")
    (tmp_path / "etc/shadow").write_text("root:x:1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n")
    rootfs.configure_login(tmp_path, features, "ttyS0")
    assert (tmp_path / "etc/shadow").read_text() == f"root:{password}:1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n"
    assert (tmp_path / "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf").exists() == autologin
