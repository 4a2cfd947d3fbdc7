from django.urls import include, path

from providers.views import exchange_rates, models, providers, routes

app_name = "providers"

model_patterns = [
    path("", models.model_detail, name="model_detail"),
    path("edit/", models.model_edit, name="model_edit"),
    path("rename/", models.model_rename, name="model_rename"),
    path("disable/", models.model_disable, name="model_disable"),
    path("enable/", models.model_enable, name="model_enable"),
    path("delete/", models.model_delete, name="model_delete"),
    path("prices/", models.price_create, name="price_create"),
    path("prices/from-catalogue/", models.price_from_catalog, name="price_from_catalog"),
    path("prices/<int:price_pk>/withdraw/", models.price_withdraw, name="price_withdraw"),
]
provider_patterns = [
    path("", providers.provider_detail, name="provider_detail"),
    path("test/", providers.provider_test, name="provider_test"),
    path("edit/", providers.provider_edit, name="provider_edit"),
    path("credential/", providers.provider_credential, name="provider_credential"),
    path("disable/", providers.provider_disable, name="provider_disable"),
    path("enable/", providers.provider_enable, name="provider_enable"),
    path("delete/", providers.provider_delete, name="provider_delete"),
    path("models/take-over/", models.model_create, name="model_create"),
    path("models/<uid:model_uid>/", include(model_patterns)),
]
urlpatterns = [
    path("o/<slug:organization_slug>/providers/", providers.provider_list, name="provider_list"),
    path("o/<slug:organization_slug>/providers/add/", providers.provider_create, name="provider_create"),
    path("o/<slug:organization_slug>/providers/alerts/", routes.alert_list, name="alert_list"),
    path("o/<slug:organization_slug>/providers/<uid:provider_uid>/", include(provider_patterns)),
    path("o/<slug:organization_slug>/exchange-rates/", exchange_rates.exchange_rate_list, name="exchange_rate_list"),
    path(
        "o/<slug:organization_slug>/exchange-rates/add/",
        exchange_rates.exchange_rate_create,
        name="exchange_rate_create",
    ),
    path(
        "o/<slug:organization_slug>/exchange-rates/<uid:exchange_rate_uid>/withdraw/",
        exchange_rates.exchange_rate_withdraw,
        name="exchange_rate_withdraw",
    ),
    path("o/<slug:organization_slug>/routes/", routes.route_list, name="route_list"),
    path("o/<slug:organization_slug>/routes/add/", routes.route_create, name="route_create"),
    path("o/<slug:organization_slug>/routes/<uid:route_uid>/", routes.route_edit, name="route_edit"),
    path("o/<slug:organization_slug>/routes/<uid:route_uid>/delete/", routes.route_delete, name="route_delete"),
]
