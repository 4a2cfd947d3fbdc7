from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "usage"

    def ready(self):
        from console.navigation import register_count
        from usage import first_steps
        from usage.limit_queries import waiting_wishes

        first_steps.add()
        register_count("limits", waiting_wishes)
