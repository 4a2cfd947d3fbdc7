from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("console", "0002_flavours")]

    operations = [
        migrations.AddField(
            "workspace", "stores_responses", models.BooleanField(default=True, verbose_name="stored responses")
        ),
        migrations.AddField(
            "apikey",
            "stores_responses",
            models.BooleanField(default=True, help_text="If the workspace does.", verbose_name="stored responses"),
        ),
    ]
