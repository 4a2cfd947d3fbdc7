"""The static files as `manage.py prepare` leaves them and as browsers get them."""

import gzip
import posixpath
import re

import brotli
import httpx
import pytest
from django.conf import settings
from django.contrib.staticfiles.finders import FileSystemFinder
from servestatic import ServeStaticASGI

from config.storage import HASHED, HashedStaticFilesStorage, inline_imports

URL = re.compile(r"""url\(["']?([^"')]+)["']?\)""")


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """The project's static files, collected into a folder of their own."""
    folder = tmp_path_factory.mktemp("static")
    storage = HashedStaticFilesStorage(location=folder, base_url="/static/")
    paths = {}
    for name, source in FileSystemFinder().list([]):
        paths[name] = (source, name)
        with source.open(name) as file:
            storage._save(name, file)
    for name, _, processed in storage.post_process(paths):
        assert not isinstance(processed, Exception), f"{name}: {processed}"
    return storage


def test_the_style_sheet_is_one_file(collected):
    sheet = collected.open(collected.hashed_files["css/app.css"]).read().decode()
    assert "@import" not in sheet
    assert "@layer components {" in sheet


def test_every_address_in_it_leads_to_a_file(collected):
    sheet = collected.open(collected.hashed_files["css/app.css"]).read().decode()
    addresses = [address for address in URL.findall(sheet) if not address.startswith("#")]
    assert addresses
    for address in addresses:
        assert HASHED.search(address)
        assert collected.exists(posixpath.normpath(posixpath.join("css", address)))


def test_modules_import_each_other_by_hashed_names(collected):
    code = collected.open(collected.hashed_files["js/app.js"]).read().decode()
    imports = re.findall(r"""import\s*["'](\./[^"']+)["']""", code)
    assert imports
    assert all(HASHED.search(name) and collected.exists(posixpath.normpath(f"js/{name}")) for name in imports)


def test_text_stands_there_compressed_too(collected):
    for name in ("css/app.css", "js/app.js", "vendor/htmx.min.js"):
        hashed = collected.hashed_files[name]
        content = collected.open(hashed).read()
        assert gzip.decompress(collected.open(f"{hashed}.gz").read()) == content
        assert brotli.decompress(collected.open(f"{hashed}.br").read()) == content


def test_collecting_again_gives_the_same_names(collected):
    before = dict(collected.hashed_files)
    paths = {name: (source, name) for name, source in FileSystemFinder().list([])}
    list(collected.post_process(paths))
    assert collected.hashed_files == before


@pytest.mark.anyio
async def test_browsers_get_the_smallest_form_and_keep_it(collected):
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(ServeStaticASGI(None, root=collected.location, prefix=settings.STATIC_URL)),
        base_url="http://localhost",
    ) as client:
        address = f"/static/{collected.hashed_files['css/app.css']}"
        packed = await client.get(address, headers={"accept-encoding": "gzip, br"})
        plain = await client.get(address, headers={"accept-encoding": "identity"})
        assert packed.headers["content-encoding"] == "br"
        assert packed.text == plain.text
        assert "immutable" in packed.headers["cache-control"]
        assert "immutable" not in (await client.get("/static/css/app.css")).headers["cache-control"]


def test_imports_are_taken_in_with_their_layers_and_addresses():
    files = {
        "css/app.css": '@layer base, parts;\n@import url("base.css") layer(base);\n'
        "@import url('parts/key.css') layer(parts);\n/* @import url(\"no.css\"); */\n",
        "css/base.css": 'a { background: url("../img/a.svg#b") }',
        "css/parts/key.css": "b { mask: url(../../img/b.svg); clip-path: url(#c); background: url('/static/d.svg') }",
    }
    assert inline_imports("css/app.css", files.__getitem__) == (
        '@layer base, parts;\n@layer base {\na { background: url("../img/a.svg#b") }\n}\n'
        "@layer parts {\nb { mask: url(../img/b.svg); clip-path: url(#c); background: url('/static/d.svg') }\n}\n"
        '/* @import url("no.css"); */\n'
    )
