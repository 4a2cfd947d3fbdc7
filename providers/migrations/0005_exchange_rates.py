from decimal import Decimal

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models
from django.db.models import OuterRef, Subquery

import providers.currencies
import providers.models


def fill(apps, schema_editor):
    """What was priced so far was priced in the organization's currency."""
    Organization = apps.get_model("console", "Organization")
    Provider = apps.get_model("providers", "Provider")
    Price = apps.get_model("providers", "Price")
    theirs = Organization.objects.filter(pk=OuterRef("organization_id")).values("currency")
    Provider.objects.update(currency=Subquery(theirs))
    providers_currency = Provider.objects.filter(models__pk=OuterRef("provider_model_id")).values("currency")
    Price.objects.update(currency=Subquery(providers_currency))


def currency():
    return models.CharField(
        blank=True,
        default="",
        max_length=3,
        validators=[providers.currencies.validate_currency],
        verbose_name="currency",
    )


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("console", "0001_initial"),
        ("providers", "0004_provider_renewed_at"),
    ]

    operations = [
        migrations.AddField("price", "currency", currency(), preserve_default=False),
        migrations.AddField("provider", "currency", currency(), preserve_default=False),
        migrations.CreateModel(
            name="ExchangeRate",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "uid",
                    models.CharField(
                        default=providers.models.new_exchange_rate_id, editable=False, max_length=40, unique=True
                    ),
                ),
                (
                    "from_currency",
                    models.CharField(
                        max_length=3,
                        validators=[providers.currencies.validate_currency],
                        verbose_name="from currency",
                    ),
                ),
                (
                    "rate",
                    models.DecimalField(
                        decimal_places=10,
                        max_digits=18,
                        validators=[django.core.validators.MinValueValidator(Decimal("1E-10"))],
                        verbose_name="rate",
                    ),
                ),
                ("valid_from", models.DateTimeField(default=django.utils.timezone.now, verbose_name="valid from")),
                ("source", models.CharField(blank=True, max_length=80, verbose_name="source")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="exchange_rates",
                        to="console.organization",
                    ),
                ),
            ],
            options={
                "ordering": ["-valid_from", "-pk"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "from_currency", "valid_from"),
                        name="providers_exchangerate_one_a_moment",
                        violation_error_message="Another rate begins at that moment.",
                    ),
                    models.CheckConstraint(condition=models.Q(("rate__gt", 0)), name="providers_exchangerate_positive"),
                ],
            },
        ),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=True),
    ]
