from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="requestlog",
            name="dropped",
            field=models.CharField(help_text="Fields that the provider could not be told.", max_length=300, null=True),
        ),
    ]
