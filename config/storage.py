"""Static files under hashed names, so that browsers keep them for ever; one style sheet; compressed beforehand."""

import gzip
import posixpath
import re
from concurrent.futures import ThreadPoolExecutor

import brotli
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.files.base import ContentFile

STYLE_SHEET = "css/app.css"
IMPORT = re.compile(r"""^@import url\(["']?(?P<url>[^"')]+)["']?\)(?: layer\((?P<layer>[\w.-]+)\))?;$""", re.MULTILINE)
RELATIVE_URL = re.compile(r"""url\((?P<quote>["']?)(?!/|#|[a-z]+:)(?P<url>[^"')]+)(?P=quote)\)""")
COMPRESSED = (".css", ".js", ".svg", ".json", ".webmanifest")
HASHED = re.compile(r"\.[0-9a-f]{12}\.\w+$")


class HashedStaticFilesStorage(ManifestStaticFilesStorage):
    """
    Hashed names, also inside ES module imports.

    ``css/app.css`` takes its ``@import`` lines in, so that sources stay one file a component and browsers make one
    request. Beside each hashed text file stand the ``.gz`` and ``.br`` that servestatic sends.
    """

    support_js_module_import_aggregation = True
    manifest_strict = False
    # Passes over the same file would leave one hashed name each; only the last one is ever asked for.
    keep_intermediate_files = False

    def post_process(self, paths, dry_run=False, **options):
        if not dry_run and STYLE_SHEET in paths:
            sheet = inline_imports(STYLE_SHEET, lambda name: _read(paths, name))
            self.delete(STYLE_SHEET)
            self._save(STYLE_SHEET, ContentFile(sheet))
            paths = paths | {STYLE_SHEET: (self, STYLE_SHEET)}
        yield from super().post_process(paths, dry_run, **options)
        if not dry_run:
            self._compress()

    def _compress(self):
        names = [name for name in self.hashed_files.values() if name.endswith(COMPRESSED) and HASHED.search(name)]
        with ThreadPoolExecutor() as threads:
            list(threads.map(self._compress_one, names))

    def _compress_one(self, name):
        with self.open(name) as file:
            content = file.read()
        for suffix, packed in ((".gz", gzip.compress(content, 9, mtime=0)), (".br", brotli.compress(content))):
            self.delete(name + suffix)
            # A file that packing makes no smaller is sent as it is.
            if len(packed) < len(content):
                self._save(name + suffix, ContentFile(packed))


def inline_imports(name, read):
    """
    The style sheet ``name`` with each ``@import url(…) layer(…);`` line replaced by what it names.

    ``read`` gives a file's text. Relative addresses are turned to count from ``name``'s folder.
    """
    folder = posixpath.dirname(name)

    def inlined(match):
        source = posixpath.normpath(posixpath.join(folder, match["url"]))
        text = _rebase(inline_imports(source, read), posixpath.dirname(source), folder)
        return f"@layer {match['layer']} {{\n{text}\n}}" if match["layer"] else text

    return IMPORT.sub(inlined, read(name))


def _rebase(text, source, target):
    def rebased(match):
        path = posixpath.relpath(posixpath.join("/", source, match["url"]), posixpath.join("/", target))
        return f"url({match['quote']}{path}{match['quote']})"

    return RELATIVE_URL.sub(rebased, text)


def _read(paths, name):
    if name not in paths:
        raise ValueError(f"{STYLE_SHEET} imports {name}, which is not a static file.")
    storage, path = paths[name]
    with storage.open(path) as file:
        return file.read().decode()
