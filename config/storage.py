"""Static files under hashed names, so that browsers keep them for ever."""

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class HashedStaticFilesStorage(ManifestStaticFilesStorage):
    """Hashed names, also inside ES module imports."""

    support_js_module_import_aggregation = True
    manifest_strict = False
