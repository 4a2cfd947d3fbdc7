from django.urls import path

from console.views import api_keys, home, preferences, sessions, workspaces

app_name = "console"
urlpatterns = [
    path("", sessions.start, name="start"),
    path("signin/", sessions.sign_in, name="sign_in"),
    path("signout/", sessions.sign_out, name="sign_out"),
    path("preferences/", preferences.preferences, name="preferences"),
    path("w/<slug:workspace_slug>/", home.home, name="home"),
    path("w/<slug:workspace_slug>/keys/", api_keys.api_key_list, name="api_key_list"),
    path("w/<slug:workspace_slug>/keys/create/", api_keys.api_key_create, name="api_key_create"),
    path("w/<slug:workspace_slug>/keys/<uid:api_key_uid>/edit/", api_keys.api_key_edit, name="api_key_edit"),
    path("w/<slug:workspace_slug>/keys/<uid:api_key_uid>/disable/", api_keys.api_key_disable, name="api_key_disable"),
    path("w/<slug:workspace_slug>/keys/<uid:api_key_uid>/enable/", api_keys.api_key_enable, name="api_key_enable"),
    path("w/<slug:workspace_slug>/keys/<uid:api_key_uid>/revoke/", api_keys.api_key_revoke, name="api_key_revoke"),
    path("o/<slug:organization_slug>/workspaces/", workspaces.workspace_list, name="workspace_list"),
    path("o/<slug:organization_slug>/workspaces/create/", workspaces.workspace_create, name="workspace_create"),
    path(
        "o/<slug:organization_slug>/workspaces/<uid:workspace_uid>/edit/",
        workspaces.workspace_edit,
        name="workspace_edit",
    ),
]
