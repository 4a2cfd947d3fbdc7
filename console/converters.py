"""Ids in addresses: nothing else reaches the database, which may know characters that it cannot compare."""

from django.urls import register_converter
from django.urls.converters import StringConverter

from console.ids import UID


class UidConverter(StringConverter):
    regex = UID


class RequestIdConverter(StringConverter):
    regex = "req_[0-9A-Z]{26}"


def register():
    """Make ``<uid:…>`` and ``<request_id:…>`` known to addresses."""
    register_converter(UidConverter, "uid")
    register_converter(RequestIdConverter, "request_id")
