from django.urls import include, path

urlpatterns = [
    path("", include("console.urls")),
    path("", include("providers.urls")),
    path("", include("usage.urls")),
    path("", include("playground.urls")),
]
