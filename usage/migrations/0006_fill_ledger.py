"""Enter into the ledger what was spent before there was one: the sums of days, which are those of the rows."""

from collections import Counter

from django.db import migrations

from usage.calendar import calendar_of


def fill(apps, schema_editor):
    Organization = apps.get_model("console", "Organization")
    UsageRollup = apps.get_model("usage", "UsageRollup")
    LedgerPeriod = apps.get_model("usage", "LedgerPeriod")
    zones = dict(Organization.objects.values_list("pk", "time_zone"))
    sums = Counter()
    columns = ("organization_id", "workspace_id", "api_key_id", "user_id", "start", "cost_nanos")
    for organization, workspace, key, user, day, cost in (
        UsageRollup.objects.filter(width="day", cost_nanos__gt=0).values_list(*columns).iterator()
    ):
        scopes = [("organization", organization), ("workspace", workspace)]
        scopes += [("api_key", key)] if key else []
        scopes += [("member", user)] if user else []
        for period in ("day", "week", "month"):
            interval = calendar_of(zones.get(organization, "UTC")).interval(period, day)
            for scope in scopes:
                sums[organization, *scope, period, *interval] += cost
    LedgerPeriod.objects.bulk_create(
        (
            LedgerPeriod(
                organization_id=organization, scope=scope, scope_id=scope_id, period=period, start=start, end=end,
                settled_nanos=cost,
            )
            for (organization, scope, scope_id, period, start, end), cost in sums.items()
        ),
        batch_size=1_000,
    )  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [("usage", "0005_spend_limits")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]
