# SPDX-License-Identifier: MIT
"""The device's configuration: ``/etc/composeapps/config.toml``.

The section ``[pacman]`` has the names that LmP's users know; ``[composeapps]`` has ours, ``[delivery]`` what is said
of the factory's server; ``[registry."HOST"]`` is described in composeapps.registry.settings. Every key is optional, an
unknown one is an error. What a single device was given has the same form, is read behind that file and wins over it:
``composeapps.toml`` in the directory ``identity_dir``.
"""

import re
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from composeapps import beneath
from composeapps.errors import UsageError
from composeapps.keys import (
    FLAG,
    HTTPS,
    NAMES,
    PATH,
    SOCKET,
    TAGS,
    WINDOW,
    WORD,
    WORDS,
    Key,
    checked,
    number,
)

DEFAULT_FILE = Path("/etc/composeapps/config.toml")
# Of a single device, in the directory of its identity.
DEVICE_FILE = "composeapps.toml"


class Config(NamedTuple):
    """What the configuration says, with the defaults of what it does not; KEYS tells what each field means.

    ``apps`` is None for none; ``compose_command`` is empty to look for docker compose; ``registries`` maps registries'
    names to their composeapps.registry.settings.RegistrySettings.
    """

    store: Path = Path("/var/sota/reset-apps")
    compose_root: Path = Path("/var/sota/compose-apps")
    factory_file: Path = Path("/usr/share/composeapps/factory.json")
    factory_store: Path = Path("/factory/reset-apps")
    state_dir: Path = Path("/var/lib/composeapps")
    identity_dir: Path = Path("/var/sota")
    docker_host: str = "unix:///run/docker.sock"
    compose_command: tuple = ()
    compose_timeout: int = 600
    apps: tuple | None = None
    storage_watermark: int = 80
    callback_program: Path | None = None
    soak_time: int = 10
    health_timeout: int = 300
    max_failures: int = 3
    bandwidth: int = 0
    parallel: int = 3
    tags: tuple = ()
    server: str = ""
    repo_server: str = ""
    hardware_id: str = ""
    root_dir: Path = Path("/usr/share/composeapps/tuf")
    unsigned: bool = False
    window: tuple | None = None
    renewal_server: str = ""
    renewal_days: int = 30
    renewal_new_key: bool = False
    registries: dict = MappingProxyType({})


PARALLEL = number(1, 32)
_DAY = 86400
KEYS = (
    Key("pacman", "reset_apps_root", "store", PATH, "the restorable store", '"/var/sota/reset-apps"'),
    Key("pacman", "compose_apps_root", "compose_root", PATH, "where the bundle of each installed app is unpacked",
        '"/var/sota/compose-apps"'),
    Key("pacman", "compose_apps", "apps", NAMES, "apps whose versions in the store 'prune' keeps before they are "
        "installed", '"shop, web"', "none"),
    Key("pacman", "storage_watermark", "storage_watermark", number(20, 95), "how full, in percent, a file system may "
        "become by a pull or an update", "90"),
    Key("pacman", "callback_program", "callback_program", PATH, "a program that is run at the steps of an update",
        '"/usr/bin/told-of-updates"', "none"),
    Key("pacman", "tags", "tags", TAGS, "with [delivery]: Targets with any of these tags are for this device; the "
        "server is told the first", '"main"', "none: no Target is for it"),
    Key("composeapps", "factory_file", "factory_file", PATH, "the list of the preloaded apps, which the image brings",
        '"/usr/share/composeapps/factory.json"'),
    Key("composeapps", "factory_store", "factory_store", PATH, "a read-only store that has the preloaded apps, too; it "
        "need not be there", '"/factory/reset-apps"'),
    Key("composeapps", "state_dir", "state_dir", PATH, "the agent's own files: what is installed, history, unfinished "
        "updates", '"/var/lib/composeapps"'),
    Key("composeapps", "identity_dir", "identity_dir", PATH, "the device's identity: pkey.pem, client.pem, root.crt, "
        "device.json; and composeapps.toml, settings of this device that win over the file", '"/var/sota"'),
    Key("composeapps", "docker_host", "docker_host", SOCKET, "dockerd's socket", '"unix:///run/docker.sock"'),
    Key("composeapps", "compose_command", "compose_command", WORDS, "the words that start docker compose",
        '["/usr/bin/docker", "compose"]', "docker compose is looked for"),
    Key("composeapps", "compose_timeout", "compose_timeout", number(10, _DAY), "seconds that docker compose may take, "
        "besides those that the app's own stop_grace_period and start_period ask for", "900"),
    Key("composeapps", "soak_time", "soak_time", number(0, _DAY), "seconds that all services must be well before an "
        "update is committed", "60"),
    Key("composeapps", "health_timeout", "health_timeout", number(1, _DAY), "seconds that they may take to become so",
        "600"),
    Key("composeapps", "max_failures", "max_failures", number(1, 1000), "a version that failed so often is rejected",
        "5"),
    Key("composeapps", "bandwidth", "bandwidth", number(0, 10**12), "bytes a second that a download may use, 0 for no "
        "limit", "500000"),
    Key("composeapps", "parallel", "parallel", PARALLEL, "how many blobs are fetched at a time", "2"),
    Key("delivery", "server", "server", HTTPS, "the device gateway that this device checks in with; without it nothing "
        "of this section counts", '"https://gateway.example.com:8443"', "none"),
    Key("delivery", "repo_server", "repo_server", HTTPS, "where the signed metadata lies",
        '"https://tuf.example.com/repo"', "/repo below the server"),
    Key("delivery", "hardware_id", "hardware_id", WORD, "Targets with this hardware id are for this device",
        '"qemux86-64"', "none: no Target is for it"),
    Key("delivery", "root_dir", "root_dir", PATH, "the directory with N.root.json, which the image trusts",
        '"/usr/share/composeapps/tuf"'),
    Key("delivery", "unsigned", "unsigned", FLAG, "whether versions may also be named by hand, with no signature of "
        "the factory's", "true"),
    Key("delivery", "window", "window", WINDOW, "when an update may begin to replace what runs, by the device's clock; "
        "it is fetched at any time", '"22:00-04:00"', "at any time"),
    Key("delivery", "renewal_server", "renewal_server", HTTPS, "the EST server that renews the device's "
        "certificate (RFC 7030), with the path before /simplereenroll",
        '"https://est.example.com/.well-known/est"', "none"),
    Key("delivery", "renewal_days", "renewal_days", number(1, 3650), "the certificate is renewed when it is good for "
        "no more days than these", "60"),
    Key("delivery", "renewal_new_key", "renewal_new_key", FLAG, "whether it gets a new key then; a gateway that "
        "knows devices by their key would refuse it", "true"),
)
_BY_NAME = {(key.section, key.name): key for key in KEYS}
_BY_FIELD = {key.field: key for key in KEYS}
# Where things lie: a reset goes by it before the data is mounted, and what one device is given is on the data. So it
# is with what is trusted.
_IMAGES = {"store", "compose_root", "factory_file", "factory_store", "state_dir", "identity_dir", "docker_host",
           "compose_command", "root_dir", "unsigned"}
_SECTIONS = '[pacman], [composeapps], [delivery], [registry."HOST"]'
_LONGEST_FILE, _LONGEST_LINE = 256 * 1024, 4096


def load(path=None, overrides=None):
    """Read the configuration.

    Arguments:
        path: the file; None for the default one, which may be missing.
        overrides: {field: value} from the command line; None values do not count.

    Raises UsageError naming the file and the key at fault, or the option.
    """
    values = _read(Path(path) if path else DEFAULT_FILE, required=path is not None)
    place = Path(values.get("identity_dir", Config().identity_dir), DEVICE_FILE)
    own = _of_a_device(_read(place, required=False), place)
    if "registries" in own:
        own["registries"] = {**values.get("registries", {}), **own["registries"]}
    values.update(own)
    for field, value in (overrides or {}).items():
        if value is None:
            continue
        if not str(value):
            raise UsageError(f"the option --{field.replace('_', '-')} is empty: give it a value, or leave it out")
        # Of a command line's paths those count that are relative to where it was given.
        values[field] = Path(value).absolute() if _BY_FIELD[field].kind is PATH else value
    return Config(**values)


def check_own(text):
    """See that settings (TOML) are such as a single device may have. Raises UsageError."""
    _of_a_device(parse(text.encode(), "the settings"), "the settings")


def _of_a_device(values, path):
    wrong = sorted(values.keys() & _IMAGES)
    if wrong:
        raise UsageError(f"{path}: '{_BY_FIELD[wrong[0]].name}' is the same for all devices of an image, and set in "
                         f"{DEFAULT_FILE} only")
    return values


def _read(path, required):
    try:
        # Anything else than a file may let us wait for ever.
        with beneath.open_regular(path) as stream:
            data = stream.read(_LONGEST_FILE + 1)
    except FileNotFoundError:
        if required:
            raise UsageError(f"the configuration file {path} does not exist") from None
        return {}
    except OSError as err:
        raise UsageError(f"the configuration file {path} cannot be read: {err.strerror}") from None
    return parse(data, path)


def parse(data, path):
    """Return {field: value} of a configuration.

    Arguments:
        data: the file's bytes.
        path: how errors name the file.

    Raises UsageError naming the key at fault.
    """
    # tomllib takes memory by the square of a key's parts.
    if len(data) > _LONGEST_FILE or any(len(line) > _LONGEST_LINE for line in data.splitlines()):
        raise UsageError(f"the configuration file {path} has more than {_LONGEST_FILE} bytes, or a line with more than "
                         f"{_LONGEST_LINE}")
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise UsageError(f"the configuration file {path} is not UTF-8 text (line {line})") from None
    except (ValueError, RecursionError) as err:
        raise UsageError(f"the configuration file {path} is not TOML: {_reason(str(err))}") from None
    values = {}
    if isinstance(document.get("registry"), dict):
        from composeapps.registry.settings import parse_section

        values["registries"] = parse_section(document.pop("registry"), path)
    for section, entries in document.items():
        if not isinstance(entries, dict):
            raise UsageError(f"{path}: '{section}' belongs into a section: {_SECTIONS}")
        if not any(key.section == section for key in KEYS):
            raise UsageError(f"{path}: there is no section [{section}]; there are {_SECTIONS}")
        for name, value in entries.items():
            key = _BY_NAME.get((section, name))
            if key is None:
                raise UsageError(f"{path}: unknown key '{name}' in [{section}]; {_known(section, name)}")
            values[key.field] = checked(path, key, value)
    return values


def _known(section, name):
    """Return where a key belongs that is not known in its section, or which are known there."""
    others = [key.section for key in KEYS if key.name == name]
    if others:
        return f"it belongs into [{others[0]}]"
    return f"known: {', '.join(key.name for key in KEYS if key.section == section)}"


def _reason(text):
    """Return tomllib's reason in words of the file's writer."""
    if found := re.match(r"Cannot declare \((.*?),?\) twice (\(.*\))", text):
        section = ".".join(re.findall("'(.*?)'", found[1]))
        return f"the section [{section}] stands twice {found[2]}"
    if found := re.match(r"Cannot overwrite a value (\(.*\))", text):
        return f"a key stands twice {found[1]}"
    return text
