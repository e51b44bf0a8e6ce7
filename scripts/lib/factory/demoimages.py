# SPDX-License-Identifier: MIT
"""The images of the demo apps: busybox, nginx and redis of Debian, on shared lower layers."""

from factory.imagebuild import ImageSpec
from factory.layers import LayerSpec, directory, file, symlink

SUITE = "trixie"
ARCHITECTURES = ("amd64", "arm64")

REDIS_UID = 100

_APPLETS = """
    ash basename cat chmod chown cp cut date dd df dirname du echo env expr false find free grep gunzip gzip head
    hostname httpd id ip kill ln ls md5sum mkdir mktemp mv nc nslookup od ping printf ps pwd readlink rm rmdir sed
    seq sh sha256sum sleep sort stat tail tar tee test timeout top touch tr true tty uname uniq vi wc wget which
    whoami xargs
"""

_PASSWD = f"""\
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
redis:x:{REDIS_UID}:{REDIS_UID}:redis:/var/lib/redis:/bin/false
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""

_GROUP = f"""\
root:x:0:
www-data:x:33:
redis:x:{REDIS_UID}:
nogroup:x:65534:
"""

_BASE = LayerSpec(
    packages=("busybox-static",),
    entries={
        **{name: symlink(f"usr/{name}") for name in ("bin", "sbin", "lib")},
        **{f"usr/{name}": directory() for name in ("bin", "sbin", "lib")},
        **{name: directory() for name in ("dev", "etc", "proc", "run", "sys", "var/lib", "var/log")},
        **{name: directory(0o1777) for name in ("tmp", "var/tmp")},
        "root": directory(0o700),
        "etc/passwd": file(_PASSWD),
        "etc/group": file(_GROUP),
        "etc/nsswitch.conf": file("passwd: files\ngroup: files\nhosts: files dns\n"),
        **{f"usr/bin/{applet}": symlink("busybox") for applet in _APPLETS.split()},
    },
)

_LIBRARIES = LayerSpec(
    packages=("libc6", "libssl3t64", "libzstd1", "zlib1g"),
    entries={"lib64": symlink("usr/lib64")},
)

_NGINX = LayerSpec(
    packages=("libcrypt1", "libpcre2-8-0", "nginx", "nginx-common"),
    drop=("etc/nginx/sites-*", "etc/nginx/modules-*", "etc/nginx/snippets/*", "etc/nginx/koi-*", "etc/nginx/win-*"),
    entries={"var/lib/nginx": directory(), "var/log/nginx": directory()},
)

_GEO = LayerSpec(packages=("geoip-database",))

_REDIS = LayerSpec(
    packages=(
        "gcc-14-base", "libatomic1", "libcap2", "libgcc-s1", "libjemalloc2", "liblzf1", "libstdc++6", "libsystemd0",
        "redis-server", "redis-tools",
    ),
    drop=("etc/redis/*", "usr/bin/redis-benchmark", "usr/bin/redis-check-aof", "usr/share/gdb/*", "usr/share/gcc/*"),
    entries={"var/lib/redis": directory(0o750, REDIS_UID, REDIS_UID)},
)

_DEBIAN_LABELS = {"vendor": "Debian packages, put together by meta-composeapps"}

_NGINX_IMAGE = ImageSpec(
    name="nginx",
    platforms=("linux/amd64",),
    layers=(_BASE, _LIBRARIES, _NGINX),
    version_package="nginx",
    labels={
        **_DEBIAN_LABELS,
        "title": "nginx",
        "description": "The nginx web server; mount a configuration at /etc/nginx/nginx.conf",
        "licenses": "BSD-2-Clause AND GPL-2.0-only AND LGPL-2.1-or-later AND Apache-2.0 AND Zlib AND BSD-3-Clause",
        "url": "https://nginx.org/",
        "source": "https://salsa.debian.org/nginx-team/nginx",
    },
    config={
        "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["/usr/sbin/nginx"],
        "Cmd": ["-g", "daemon off;"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    },
)

IMAGES = (
    ImageSpec(
        name="busybox",
        platforms=("linux/amd64", "linux/arm64"),
        layers=(_BASE,),
        version_package="busybox-static",
        labels={
            **_DEBIAN_LABELS,
            "title": "busybox",
            "description": "A shell, a small web server and the usual commands in one static program",
            "licenses": "GPL-2.0-only",
            "url": "https://busybox.net/",
            "source": "https://salsa.debian.org/installer-team/busybox",
        },
        config={
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/bin/sh"],
        },
    ),
    _NGINX_IMAGE,
    ImageSpec(
        name="redis",
        platforms=("linux/amd64",),
        layers=(_BASE, _LIBRARIES, _REDIS),
        version_package="redis-server",
        labels={
            **_DEBIAN_LABELS,
            "title": "redis",
            "description": "The redis key-value store, its data in /var/lib/redis",
            "licenses": (
                "AGPL-3.0-only AND GPL-2.0-only AND LGPL-2.1-or-later AND Apache-2.0 AND Zlib AND BSD-2-Clause "
                "AND BSD-3-Clause AND GPL-3.0-with-GCC-exception"
            ),
            "url": "https://redis.io/",
            "source": "https://salsa.debian.org/lamby/pkg-redis",
        },
        config={
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "User": "redis",
            "WorkingDir": "/var/lib/redis",
            "Entrypoint": ["/usr/bin/redis-server"],
            # Open to the app's other containers only: nothing publishes this port.
            "Cmd": ["--bind", "*", "-::*", "--protected-mode", "no", "--dir", "/var/lib/redis"],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/var/lib/redis": {}},
        },
    ),
)

# What the demo's second release needs besides: the layers of nginx, and one more.
RELEASE_IMAGES = (
    ImageSpec(
        name="nginx-geo",
        platforms=("linux/amd64",),
        layers=(*_NGINX_IMAGE.layers, _GEO),
        version_package="nginx",
        labels={
            **_NGINX_IMAGE.labels,
            "title": "nginx-geo",
            "description": "The nginx web server with a database of the countries of addresses",
            "licenses": f"{_NGINX_IMAGE.labels['licenses']} AND CC-BY-SA-4.0",
        },
        config=_NGINX_IMAGE.config,
    ),
)
