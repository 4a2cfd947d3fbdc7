from django.urls import path

from usage.views import dashboard, fragments, requests

app_name = "usage"
urlpatterns = [
    path("w/<slug:workspace_slug>/usage/", dashboard.dashboard, name="dashboard"),
    path("w/<slug:workspace_slug>/usage/today/", fragments.today, name="today"),
    path("w/<slug:workspace_slug>/usage/keys/", fragments.key_spends, name="key_spends"),
    path("w/<slug:workspace_slug>/requests/", requests.request_list, name="request_list"),
    path("w/<slug:workspace_slug>/requests/<request_id:request_id>/", requests.request_detail, name="request_detail"),
]
