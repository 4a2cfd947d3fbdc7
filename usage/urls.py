from django.urls import include, path

from usage.views import alerts, dashboard, fragments, limits, rates, requests, webhooks

app_name = "usage"
webhook_patterns = [
    path("", webhooks.webhook_detail, name="webhook_detail"),
    path("test/", webhooks.webhook_test, name="webhook_test"),
    path("rotate/", webhooks.webhook_rotate, name="webhook_rotate"),
    path("disable/", webhooks.webhook_disable, name="webhook_disable"),
    path("enable/", webhooks.webhook_enable, name="webhook_enable"),
    path("delete/", webhooks.webhook_delete, name="webhook_delete"),
]
urlpatterns = [
    path("w/<slug:workspace_slug>/usage/", dashboard.dashboard, name="dashboard"),
    path("w/<slug:workspace_slug>/usage/today/", fragments.today, name="today"),
    path("w/<slug:workspace_slug>/usage/keys/", fragments.key_spends, name="key_spends"),
    path("w/<slug:workspace_slug>/requests/", requests.request_list, name="request_list"),
    path("w/<slug:workspace_slug>/requests/<request_id:request_id>/", requests.request_detail, name="request_detail"),
    path("limits/<uid:limit_uid>/", limits.limit_link, name="limit_link"),
    path("w/<slug:workspace_slug>/limits/", limits.limit_list, name="limit_list"),
    path("w/<slug:workspace_slug>/limits/organization/", limits.limit_organization, name="limit_organization"),
    path("w/<slug:workspace_slug>/limits/keys/<uid:api_key_uid>/", limits.limit_key, name="limit_key"),
    path("w/<slug:workspace_slug>/limits/members/<uid:user_uid>/", limits.limit_member, name="limit_member"),
    path("w/<slug:workspace_slug>/limits/add/", limits.limit_create, name="limit_create"),
    path("w/<slug:workspace_slug>/limits/asked/", limits.increase_list, name="increase_list"),
    path("w/<slug:workspace_slug>/limits/asked/<uid:increase_uid>/", limits.increase_answer, name="increase_answer"),
    path("w/<slug:workspace_slug>/limits/<uid:limit_uid>/", limits.limit_ledger, name="limit_ledger"),
    path("w/<slug:workspace_slug>/limits/<uid:limit_uid>/edit/", limits.limit_edit, name="limit_edit"),
    path("w/<slug:workspace_slug>/limits/<uid:limit_uid>/remove/", limits.limit_remove, name="limit_remove"),
    path("w/<slug:workspace_slug>/limits/<uid:limit_uid>/ask/", limits.increase_create, name="increase_create"),
    path("w/<slug:workspace_slug>/limits/rates/add/", rates.rate_create, name="rate_create"),
    path("w/<slug:workspace_slug>/limits/rates/<uid:rate_uid>/edit/", rates.rate_edit, name="rate_edit"),
    path("w/<slug:workspace_slug>/limits/rates/<uid:rate_uid>/remove/", rates.rate_remove, name="rate_remove"),
    path("w/<slug:workspace_slug>/limits/groups/add/", rates.group_create, name="group_create"),
    path("w/<slug:workspace_slug>/limits/groups/<uid:group_uid>/edit/", rates.group_edit, name="group_edit"),
    path("w/<slug:workspace_slug>/limits/groups/<uid:group_uid>/remove/", rates.group_remove, name="group_remove"),
    path("w/<slug:workspace_slug>/limits/tier/", rates.tier_edit, name="tier_edit"),
    path(
        "w/<slug:workspace_slug>/limits/<uid:limit_uid>/leases/<int:lease_id>/release/",
        limits.lease_release,
        name="lease_release",
    ),
    path("w/<slug:workspace_slug>/spend-alerts/", alerts.spend_alerts, name="spend_alerts"),
    path("o/<slug:organization_slug>/alerts/", alerts.alert_list, name="alert_list"),
    path("o/<slug:organization_slug>/webhooks/", webhooks.webhook_list, name="webhook_list"),
    path("o/<slug:organization_slug>/webhooks/add/", webhooks.webhook_create, name="webhook_create"),
    path("o/<slug:organization_slug>/webhooks/<uid:webhook_uid>/", include(webhook_patterns)),
]
