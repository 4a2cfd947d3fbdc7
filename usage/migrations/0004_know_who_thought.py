from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0003_stored_responses")]

    operations = [
        migrations.RenameField("storedresponse", "provider_id", "provider_model_id"),
        migrations.AlterField(
            model_name="storedresponse",
            name="provider_model_id",
            field=models.BigIntegerField(help_text="What answered, and can read the thoughts in it.", null=True),
        ),
    ]
