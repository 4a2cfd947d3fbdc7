import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("playground", "0001_initial"),
        ("providers", "0003_routes_and_alerts"),
    ]

    operations = [
        migrations.AddField(
            model_name="conversation",
            name="route",
            field=models.ForeignKey(
                help_text="What was asked, where it was a route.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="providers.modelroute",
            ),
        ),
    ]
