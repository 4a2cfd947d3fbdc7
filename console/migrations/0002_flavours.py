from django.db import migrations, models

FLAVOURS = [
    ("openai", "OpenAI"),
    ("ikalas", "Ikalas"),
    ("cloud-temple", "Cloud Temple"),
    ("evolink", "EvoLink"),
    ("ektos", "Ektos"),
]


class Migration(migrations.Migration):
    dependencies = [("console", "0001_initial")]

    operations = [
        migrations.AddField(
            "workspace",
            "flavour",
            models.CharField(choices=FLAVOURS, default="openai", max_length=16, verbose_name="answer style"),
        ),
        migrations.AddField(
            "apikey",
            "flavour",
            models.CharField(
                blank=True,
                choices=FLAVOURS,
                help_text="Empty: as the workspace has it.",
                max_length=16,
                verbose_name="answer style",
            ),
        ),
    ]
