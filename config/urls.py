from django.urls import include, path

from config import operations

operations_patterns = [
    path("", operations.operations, name="operations"),
    path("books/", operations.operations_books, name="operations_books"),
    path("check/", operations.operations_check, name="operations_check"),
]
urlpatterns = [
    path("", include("console.urls")),
    path("", include("providers.urls")),
    path("", include("usage.urls")),
    path("", include("playground.urls")),
    path("o/<slug:organization_slug>/operations/", include(operations_patterns)),
]
handler500 = "console.views.errors.server_error"
