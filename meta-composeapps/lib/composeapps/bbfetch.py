# SPDX-License-Identifier: MIT
"""A BitBake fetcher for blobs and images of OCI registries.

    oci://host[:port]/repository;digest=sha256:<hex>[;type=…][;platform=…][;size=…][;subdir=…]

type=blob      one blob
type=manifest  one manifest or index
type=image     (default) a manifest or index with all it refers to; of an index, the image for
               ``platform`` (os/architecture[/variant])

Each blob is one file in DL_DIR, ``oci-sha256-<hex>``, so that mirrors serve it like
any other download. The digest is
required and doubles as the checksum that BitBake verifies, whatever source a file came from.
``unpack`` needs no network: it puts each blob at ``<subdir>/blobs/sha256/<hex>`` under the
unpack directory (``subdir`` defaults to "store"), by a hard link where that is possible, and
verifies it again.

Variables: BB_NO_NETWORK, BB_ALLOWED_NETWORKS, DL_DIR, PREMIRRORS, MIRRORS as for every
fetcher; OCI_ENDPOINTS (``host=url …``) says where a registry listens when its name does not;
REGISTRY_AUTH_FILE names a containers-auth.json(5) file with the logins.
"""

import os

import bb
import bb.build
from bb.fetch2 import ChecksumError, Fetch, FetchError, FetchMethod, MalformedUrl, MissingParameterError, ParameterError

from composeapps.durable import replace
from composeapps.errors import ComposeAppsError, CorruptError
from composeapps.oci.digests import is_digest, sha256
from composeapps.oci.documents import parse_document
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse
from composeapps.registry.client import RegistryClient, parse_endpoints
from composeapps.registry.credentials import Credentials
from composeapps.store.store import Store

TYPES = ("image", "manifest", "blob")


class OCI(FetchMethod):
    """Fetches from OCI registries."""

    def supports(self, ud, d):
        return ud.type == "oci"

    def recommends_checksum(self, ud):
        return True

    def urldata_init(self, ud, d):
        digest = ud.parm.get("digest")
        if not digest:
            raise MissingParameterError("digest", ud.url)
        if not is_digest(digest):
            raise ParameterError(f"'{digest}' is not a digest of the form sha256:<64 hex digits>", ud.url)
        ud.oci_type = ud.parm.get("type", "image")
        if ud.oci_type not in TYPES:
            raise ParameterError(f"type '{ud.oci_type}' is none of {', '.join(TYPES)}", ud.url)
        try:
            ud.oci_ref = parse(f"{ud.host}/{ud.path.strip('/')}@{digest}")
            ud.oci_platform = Platform.parse(ud.parm["platform"]) if "platform" in ud.parm else None
        except ComposeAppsError as err:
            raise MalformedUrl(ud.url, str(err)) from None
        size = ud.parm.get("size")
        if size is not None and not size.isdecimal():
            raise ParameterError(f"size '{size}' is not a number of bytes", ud.url)
        ud.oci_size = int(size) if size is not None else None
        ud.localfile = _file_name(digest)
        # BitBake takes the expected checksum from here and then checks every source against it.
        ud.parm["sha256sum"] = ud.oci_ref.hex

    def download(self, ud, d):
        # The root may be here already and only parts of the image missing.
        if not os.path.exists(ud.localpath):
            bb.fetch2.check_network_access(d, f"oci fetch of {ud.oci_ref}", ud.url)
            self._fetch_one(ud, d)
        parts = self._parts(ud, d)
        if parts:
            self._nested(ud, d, parts).download()

    def _fetch_one(self, ud, d):
        """Write one blob or manifest to DL_DIR; a killed or failed fetch leaves no file of that name."""
        temporary = f"{ud.localpath}.{os.getpid()}.tmp"
        bb.utils.mkdirhier(os.path.dirname(ud.localpath))
        try:
            with bb.utils.environment(**bb.fetch2.get_fetcher_environment(d)), open(temporary, "wb") as out:
                client = _client(d)
                try:
                    for chunk in self._chunks(client, ud, d):
                        out.write(chunk)
                finally:
                    client.close()
                out.flush()
                os.fsync(out.fileno())
            replace(temporary, ud.localpath)
        except CorruptError as err:
            raise ChecksumError(str(err), ud.url) from None
        except (ComposeAppsError, OSError) as err:
            raise FetchError(str(err), ud.url) from None
        finally:
            bb.utils.remove(temporary)

    @staticmethod
    def _chunks(client, ud, d):
        if ud.oci_type != "blob":
            yield client.manifest(ud.oci_ref)
            return
        done = percent = 0
        for chunk in client.blob(ud.oci_ref, ud.oci_ref.digest, ud.oci_size):
            yield chunk
            done += len(chunk)
            if ud.oci_size and done * 100 // ud.oci_size > percent:
                percent = done * 100 // ud.oci_size
                bb.event.fire(bb.build.TaskProgress(percent), d)

    def _parts(self, ud, d):
        """Return the URLs of what an image consists of, as far as the files in DL_DIR tell; [] for one blob."""
        if ud.oci_type != "image":
            return []
        root = self._document(ud, ud.oci_ref.digest, d)
        if root.kind == "manifest":
            return self._manifest_parts(ud, root)
        if ud.oci_platform is None:
            raise ParameterError("the digest is that of an index: say which image of it with platform=OS/ARCHITECTURE",
                                 ud.url)
        try:
            chosen = root.select(ud.oci_platform, f"index {ud.oci_ref}")
        except ComposeAppsError as err:
            raise FetchError(str(err), ud.url) from None
        manifest_url = self._url(ud, "manifest", chosen)
        self._nested(ud, d, [manifest_url]).download()
        return [manifest_url, *self._manifest_parts(ud, self._document(ud, chosen.digest, d))]

    def _manifest_parts(self, ud, document):
        blobs = dict.fromkeys((document.config, *document.layers))
        return [self._url(ud, "blob", descriptor) for descriptor in blobs]

    @staticmethod
    def _document(ud, digest, d):
        """Read a manifest or an index from DL_DIR; BitBake has not always checked it by then."""
        path = os.path.join(d.getVar("DL_DIR"), _file_name(digest))
        with open(path, "rb") as stream:
            data = stream.read()
        if sha256(data) != digest:
            raise ChecksumError(f"{path} is not {digest}", ud.url, sha256(data).partition(":")[2])
        try:
            return parse_document(data, path)
        except ComposeAppsError as err:
            raise FetchError(str(err), ud.url) from None

    @staticmethod
    def _url(ud, kind, descriptor):
        subdir = f";subdir={ud.parm['subdir']}" if "subdir" in ud.parm else ""
        return (f"oci://{ud.oci_ref.repository};type={kind};digest={descriptor.digest};"
                f"size={descriptor.size}{subdir}")

    @staticmethod
    def _nested(ud, d, urls):
        """A Fetch for the parts, through which mirrors, checksums and the network switch apply to each."""
        return Fetch(urls, d, cache=False)

    def need_update(self, ud, d):
        return not os.path.exists(ud.localpath) or not self._complete(ud, d)

    def _complete(self, ud, d):
        """Tell whether all parts of an image are in DL_DIR, as BitBake's own stamps vouch for them."""
        if ud.oci_type != "image":
            return True
        offline = d.createCopy()
        offline.setVar("BB_NO_NETWORK", "1")
        offline.setVar("PREMIRRORS", "")
        offline.setVar("MIRRORS", "")
        try:
            parts = self._nested(ud, offline, self._parts(ud, offline))
        except (bb.fetch2.BBFetchException, OSError):
            return False
        return all(part.method.verify_donestamp(part, d) for part in parts.ud.values())

    def try_mirrors(self, fetch, ud, d, urls, check=False):
        found = super().try_mirrors(fetch, ud, d, urls, check)
        if not found or check or ud.oci_type != "image":
            return found
        # A mirror gave the image's root. If it is whole, its parts come the same way, the registry
        # last; if it is not, BitBake's own check finds that next and tries other sources.
        try:
            parts = self._parts(ud, d)
        except ChecksumError:
            return found
        self._nested(ud, d, parts).download()
        return found

    def unpack(self, ud, rootdir, d):
        subdir = ud.parm.get("subdir", "store")
        target = os.path.normpath(os.path.join(rootdir, subdir))
        if target != os.path.normpath(rootdir) and not target.startswith(os.path.normpath(rootdir) + os.sep):
            raise bb.fetch2.UnpackError(f"subdir '{subdir}' leaves the unpack directory", ud.url)
        ud.unpack_tracer.unpack("oci", target)
        try:
            Store(target).add_file(ud.localpath, ud.oci_ref.digest, ud.oci_size)
        except ComposeAppsError as err:
            raise bb.fetch2.UnpackError(str(err), ud.url) from None
        offline = d.createCopy()
        offline.setVar("BB_NO_NETWORK", "1")
        parts = self._parts(ud, offline)
        if parts:
            self._nested(ud, offline, parts).unpack(rootdir)

    def checkstatus(self, fetch, ud, d):
        bb.fetch2.check_network_access(d, f"oci check of {ud.oci_ref}", ud.url)
        kind = "blobs" if ud.oci_type == "blob" else "manifests"
        with bb.utils.environment(**bb.fetch2.get_fetcher_environment(d)):
            client = _client(d)
            try:
                return client.exists(ud.oci_ref, kind, ud.oci_ref.digest)
            except ComposeAppsError as err:
                raise FetchError(str(err), ud.url) from None
            finally:
                client.close()

    def clean(self, ud, d):
        bb.utils.remove(ud.localpath)
        bb.utils.remove(ud.localpath + ".*.tmp")


def _file_name(digest):
    return "oci-" + digest.replace(":", "-")


def _client(d):
    """A registry client with what the metadata says of endpoints and logins."""
    original = d.getVar("BB_ORIGENV")
    auth_file = d.getVar("REGISTRY_AUTH_FILE") or (original and original.getVar("REGISTRY_AUTH_FILE"))
    environ = {**os.environ, **({"REGISTRY_AUTH_FILE": auth_file} if auth_file else {})}
    return RegistryClient(
        endpoints=parse_endpoints(d.getVar("OCI_ENDPOINTS")), credentials=Credentials(environ=environ), environ=environ)


def register():
    """Add the method to BitBake's list; importing the module twice adds it once."""
    if not any(isinstance(method, OCI) for method in bb.fetch2.methods):
        bb.fetch2.methods.append(OCI())


register()
