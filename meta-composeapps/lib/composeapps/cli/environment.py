# SPDX-License-Identifier: MIT
"""The environment variables that the commands heed, on devices and in scripts/."""

# Variable -> what it says. Where an option says the same, the option wins or is taken as well, as is told here.
VARIABLES = {
    "COMPOSEAPPS_ENDPOINTS":
        "where registries really listen, HOST=URL with spaces between, when not where their names say; --endpoint of a "
        "command adds to it, and BitBake's OCI_ENDPOINTS is the same for builds; it wins over 'url' in the "
        "configuration",
    "REGISTRY_AUTH_FILE":
        "the one file with logins of registries; without it auth.json of Podman's and config.json of Docker's places",
    "DOCKER_CONFIG": "the directory of Docker's config.json with logins (default: ~/.docker)",
    "XDG_CONFIG_HOME": "the directory that has containers/auth.json with logins (default: ~/.config)",
    "XDG_RUNTIME_DIR": "the directory that has Podman's containers/auth.json with logins",
    "XDG_CACHE_HOME": "where 'publish' keeps what it measured of layers, below composeapps/ (default: ~/.cache)",
    "https_proxy, http_proxy, all_proxy, no_proxy":
        "the proxy to registries, an http:// one, and hosts without it; also in capitals; 'proxy' in the configuration "
        "wins",
    "COMPOSEAPPS_PASSPHRASE_FILE": "a file with pass phrases of keys, one a line, where --passphrase-file names none",
    "COLUMNS": "how wide help may become, 80 at most",
    "NO_COLOR": "when it is set, no colours",
    "COMPOSEAPPS_BUILD": "directory for all products instead of build/",
    "COMPOSEAPPS_MIRROR": "Debian mirror, as --mirror (default: http://deb.debian.org/debian)",
    "COMPOSEAPPS_ACCEL": "kvm or tcg: how QEMU runs guests, as --accel of run-qemu (default: what works here)",
    "PIP_INDEX_URL": "the index of Python packages, as --index of gen-recipes (default: PyPI)",
    "SOURCE_DATE_EPOCH": "the time, in seconds since 1970, that files of an image get",
    "KAS_REPO_REF_DIR": "a directory of repositories that kas takes layers from, as kas knows it",
    "KAS_PREMIRRORS": "where kas looks for layers first, as kas knows it",
    "KAS_CLONE_DEPTH": "how much of a layer's history kas fetches, as kas knows it",
    "GITCONFIG_FILE": "git's configuration for fetching layers (default: ~/.gitconfig)",
}
# What several commands heed, by a name for all of them.
GROUPS = {
    "registries": ("COMPOSEAPPS_ENDPOINTS", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
                   "https_proxy, http_proxy, all_proxy, no_proxy"),
}


def explained(names):
    """Return {variable: text} of variables and groups of them."""
    return {name: VARIABLES[name] for each in names for name in GROUPS.get(each, (each,))}
