from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0008_alert_deliveries")]

    operations = [
        migrations.AddField(
            "requestlog",
            "exchange_rate",
            models.BigIntegerField(help_text="In 10⁻¹⁰, as usage.costs has it.", null=True),
        ),
    ]
