from django.urls import include, path

urlpatterns = [
    path("", include("console.urls")),
    path("", include("providers.urls")),
    path("", include("usage.urls")),
    path("", include("playground.urls")),
]
handler500 = "console.views.errors.server_error"
