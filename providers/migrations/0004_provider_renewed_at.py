import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("providers", "0003_routes_and_alerts")]

    operations = [
        migrations.AddField(
            "provider", "renewed_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)
        ),
    ]
