from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """No models, views or middleware: an app for its management commands and checks."""

    name = "gateway"
