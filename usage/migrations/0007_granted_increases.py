from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0006_fill_ledger")]

    operations = [
        migrations.AddField("limitincrease", "granted_nanos", models.BigIntegerField(null=True)),
        migrations.AddField("limitincrease", "granted_until", models.DateTimeField(null=True)),
    ]
