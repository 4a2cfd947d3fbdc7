"""Who can answer: providers, the models they sell and what those cost from which day."""

from decimal import Decimal

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from console.ids import new_id
from console.models import Organization
from providers.capabilities import type_of, validate_capabilities
from providers.currencies import validate_currency
from providers.presets import PRESETS, kind_choices, preset_of
from providers.rates import validate_tiers


def new_provider_id():
    return new_id("prov")


def new_model_id():
    return new_id("model")


def seconds():
    """A timeout of a provider; ``None`` is the server's default."""
    return models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(3600)]
    )


def currency():
    """The three letters of a currency; empty, it is filled in when the row is saved."""
    return models.CharField(_("currency"), max_length=3, blank=True, validators=[validate_currency])


class RemovableQuerySet(models.QuerySet):
    def current(self):
        """What has not been removed."""
        return self.filter(removed_at=None)


class Provider(models.Model):
    """
    A server that answers, with the credential it wants.

    ``sealed_credential`` is bound to this row and to the origin of ``base_url`` (providers.credentials): after a
    change of origin it cannot be opened and must be entered again. A removed provider keeps its row, for the requests
    that it answered, and no credential; its models are removed with it. ``renewed_at`` is when something last happened
    that may have mended it: what failed before says nothing of it any more. ``currency`` is that of new prices of its
    models: the organization's where nothing else was said.
    """

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="providers")
    uid = models.CharField(max_length=40, unique=True, default=new_provider_id, editable=False)
    kind = models.CharField(_("kind"), max_length=20, choices=kind_choices)
    name = models.CharField(_("name"), max_length=80)
    base_url = models.URLField(_("base URL"), max_length=300)
    currency = currency()
    sealed_credential = models.BinaryField(null=True, editable=False)
    credential_hint = models.CharField(max_length=4, blank=True, editable=False)
    approved_private_origin = models.CharField(
        max_length=300, blank=True, editable=False, help_text="Set by the operator's command line alone."
    )
    connect_timeout_s = seconds()
    first_byte_timeout_s = seconds()
    idle_timeout_s = seconds()
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    removed_at = models.DateTimeField(null=True, blank=True, editable=False)
    renewed_at = models.DateTimeField(default=timezone.now, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    objects = RemovableQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                condition=models.Q(removed_at=None),
                name="providers_provider_name",
                violation_error_message=_("This organization already has a provider with that name."),
            ),
        ]

    def __str__(self):
        return self.name

    def save(self, *args, **kwargs):
        self.currency = self.currency or self.organization.currency
        super().save(*args, **kwargs)

    @property
    def shown_name(self):
        """Its name as pages write it: the one that this server gave its own model in the reader's language."""
        return str(_(self.name)) if self.is_local else self.name

    @property
    def is_local(self):
        """Whether the server itself manages it."""
        return self.kind == "local"

    @property
    def preset(self):
        """What is known of providers of its kind at its address."""
        return preset_of(self.kind, self.base_url)

    @property
    def dialect(self):
        """The wire format it speaks: ``openai`` or ``anthropic``."""
        return PRESETS[self.kind].dialect


# Of every price that the catalogue has so far.
CATALOG_CURRENCY = "USD"


class CatalogModel(models.Model):
    """
    A model as the catalogue knows it: facts that anybody can look up, the same for every organization.

    ``catalog`` is whose price list it stands in. ``match`` says by which names it is asked for, ``rates`` and ``tiers``
    what it costs in ``currency`` (``providers.rates``); no rates are no price. ``providers.catalog`` writes it.
    """

    catalog = models.CharField(max_length=40)
    position = models.PositiveIntegerField(help_text="The first entry of a list that matches a name is the one.")
    name = models.CharField(max_length=200)
    display_name = models.CharField(max_length=200, blank=True)
    match = models.JSONField()
    context_window = models.PositiveIntegerField(null=True)
    max_output_tokens = models.PositiveIntegerField(null=True)
    capabilities = models.JSONField(default=list, validators=[validate_capabilities])
    lifecycle = models.CharField(max_length=10, default="active")
    currency = models.CharField(max_length=3, default=CATALOG_CURRENCY)
    rates = models.JSONField(default=dict)
    tiers = models.JSONField(default=list, validators=[validate_tiers])
    source = models.CharField(max_length=80)
    checked_on = models.DateField()

    class Meta:
        ordering = ["catalog", "position"]
        constraints = [models.UniqueConstraint(fields=["catalog", "name"], name="providers_catalogmodel_name")]

    def __str__(self):
        return f"{self.catalog}: {self.name}"


class Lifecycle(models.TextChoices):
    """Whether a model's maker still wants it to be used."""

    ACTIVE = "active", pgettext_lazy("model", "Active")
    DEPRECATED = "deprecated", _("Deprecated")
    RETIRED = "retired", _("Retired")


class ProviderModel(models.Model):
    """
    A model as one provider sells it. Clients ask for ``public_name``; the provider is asked for ``name``.

    ``catalog_model`` is what the catalogue says of it; with ``follows_catalog`` a change of the price there sets a new
    price here. A removed model keeps its name and its prices for the requests that it answered; another may take the
    name.
    """

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="models")
    provider = models.ForeignKey(Provider, models.CASCADE, related_name="models")
    uid = models.CharField(max_length=40, unique=True, default=new_model_id, editable=False)
    name = models.CharField(_("provider's name"), max_length=200)
    public_name = models.CharField(_("name"), max_length=200)
    context_window = models.PositiveIntegerField(_("context window"), null=True, blank=True)
    max_output_tokens = models.PositiveIntegerField(_("maximum output"), null=True, blank=True)
    capabilities = models.JSONField(
        default=list, blank=True, validators=[validate_capabilities], help_text="Empty: not known."
    )
    lifecycle = models.CharField(max_length=10, choices=Lifecycle, default=Lifecycle.ACTIVE)
    catalog_model = models.ForeignKey(CatalogModel, models.SET_NULL, null=True, blank=True, related_name="+")
    follows_catalog = models.BooleanField(default=False)
    series = models.PositiveSmallIntegerField(default=1, help_text="Its colour: one of the nine series of tokens.css.")
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    removed_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = RemovableQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "public_name"],
                condition=models.Q(removed_at=None),
                name="providers_model_public_name",
                violation_error_message=_("Another model of this organization already has that name."),
            ),
            models.UniqueConstraint(
                fields=["provider", "name"],
                condition=models.Q(removed_at=None),
                name="providers_model_once",
                violation_error_message=_("This provider's model has already been taken over."),
            ),
        ]

    def __str__(self):
        return self.public_name

    @property
    def type(self):
        """What it is for: a ``capabilities.ModelType``."""
        return type_of(self.capabilities)


def batch_rate():
    """What a million tokens cost in a batch; never below zero."""
    return models.DecimalField(
        max_digits=14, decimal_places=6, null=True, blank=True, validators=[MinValueValidator(0)]
    )


class Price(models.Model):
    """
    What a model costs from ``valid_from`` until the next price, per million tokens, in ``currency``: its provider's.

    Where that is another than the organization's, an ``ExchangeRate`` makes a cost of it. Written once; a new price is
    a new row. A cache rate that is ``None`` is charged at the input rate, a batch rate that is ``None`` at the rate of
    a plain request. ``tiers`` (``providers.rates``) replace the rates for the whole of a request whose input, cached
    or not, passes their number of tokens. ``source`` says where the price was taken from; empty, somebody typed it.
    """

    provider_model = models.ForeignKey(ProviderModel, models.CASCADE, related_name="prices")
    valid_from = models.DateTimeField(_("valid from"), default=timezone.now)
    currency = currency()
    input_per_mtok = models.DecimalField(_("input"), max_digits=14, decimal_places=6)
    output_per_mtok = models.DecimalField(_("output"), max_digits=14, decimal_places=6)
    cache_read_per_mtok = models.DecimalField(_("cache read"), max_digits=14, decimal_places=6, null=True, blank=True)
    cache_write_per_mtok = models.DecimalField(_("cache write"), max_digits=14, decimal_places=6, null=True, blank=True)
    cache_write_1h_per_mtok = models.DecimalField(
        _("cache write, 1 hour"), max_digits=14, decimal_places=6, null=True, blank=True
    )
    batch_input_per_mtok = batch_rate()
    batch_output_per_mtok = batch_rate()
    batch_cache_read_per_mtok = batch_rate()
    batch_cache_write_per_mtok = batch_rate()
    batch_cache_write_1h_per_mtok = batch_rate()
    tiers = models.JSONField(default=list, blank=True, validators=[validate_tiers])
    source = models.CharField(max_length=80, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        ordering = ["-valid_from", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["provider_model", "valid_from"], name="providers_price_one_a_moment"),
            models.CheckConstraint(
                name="providers_price_not_negative",
                condition=models.Q(input_per_mtok__gte=0, output_per_mtok__gte=0)
                & (models.Q(cache_read_per_mtok=None) | models.Q(cache_read_per_mtok__gte=0))
                & (models.Q(cache_write_per_mtok=None) | models.Q(cache_write_per_mtok__gte=0))
                & (models.Q(cache_write_1h_per_mtok=None) | models.Q(cache_write_1h_per_mtok__gte=0)),
            ),
        ]

    def __str__(self):
        return f"{self.provider_model} from {self.valid_from:%Y-%m-%d}"

    def save(self, *args, **kwargs):
        self.currency = self.currency or self.provider_model.provider.currency
        super().save(*args, **kwargs)


def new_exchange_rate_id():
    return new_id("fx")


class ExchangeRate(models.Model):
    """
    What one unit of ``from_currency`` is worth in the organization's currency, from ``valid_from`` until the next one.

    Written once; a new rate is a new row, and what was charged at an older one stays as it is. ``source`` says where
    the rate was taken from; it may be empty.
    """

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="exchange_rates")
    uid = models.CharField(max_length=40, unique=True, default=new_exchange_rate_id, editable=False)
    from_currency = models.CharField(_("from currency"), max_length=3, validators=[validate_currency])
    rate = models.DecimalField(
        _("rate"), max_digits=18, decimal_places=10, validators=[MinValueValidator(Decimal("0.0000000001"))]
    )
    valid_from = models.DateTimeField(_("valid from"), default=timezone.now)
    source = models.CharField(_("source"), max_length=80, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        ordering = ["-valid_from", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "from_currency", "valid_from"],
                name="providers_exchangerate_one_a_moment",
                violation_error_message=_("Another rate begins at that moment."),
            ),
            models.CheckConstraint(name="providers_exchangerate_positive", condition=models.Q(rate__gt=0)),
        ]

    def __str__(self):
        return f"{self.from_currency} → {self.organization.currency} from {self.valid_from:%Y-%m-%d}"


def new_route_id():
    return new_id("route")


class ModelRoute(models.Model):
    """
    A name that clients ask for, and the models that may answer: an alias, a fallback chain or a split by weight.

    It may bear the name of a model, whose own place it then takes. Its targets stand in ``RouteTarget``.
    """

    class Strategy(models.TextChoices):
        ORDERED = "ordered", _("In order")
        WEIGHTED = "weighted", _("By weight")

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="routes")
    uid = models.CharField(max_length=40, unique=True, default=new_route_id, editable=False)
    name = models.CharField(_("name"), max_length=200)
    strategy = models.CharField(_("strategy"), max_length=10, choices=Strategy, default=Strategy.ORDERED)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                name="providers_modelroute_name",
                violation_error_message=_("Another route of this organization already has that name."),
            ),
        ]

    def __str__(self):
        return self.name


class RouteTarget(models.Model):
    """A model that a route leads to: ``position`` counts from 1, ``weight`` is its share of a split."""

    route = models.ForeignKey(ModelRoute, models.CASCADE, related_name="targets")
    provider_model = models.ForeignKey(ProviderModel, models.CASCADE, related_name="+")
    position = models.PositiveSmallIntegerField()
    weight = models.PositiveSmallIntegerField(_("weight"), default=1)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["route", "provider_model"], name="providers_routetarget_once"),
        ]

    def __str__(self):
        return f"{self.route} → {self.provider_model}"


class ProviderAlert(models.Model):
    """
    Trouble with the account that this server has at a provider: open from the first failure to the next success.

    ``count`` is how many requests have met it.
    """

    class Kind(models.TextChoices):
        CREDENTIAL = "credential", _("Credential refused")
        QUOTA = "quota", _("Quota or credit used up")

    provider = models.ForeignKey(Provider, models.CASCADE, related_name="alerts")
    kind = models.CharField(max_length=12, choices=Kind)
    message = models.CharField(max_length=500)
    count = models.PositiveIntegerField(default=1)
    first_at = models.DateTimeField(default=timezone.now)
    last_at = models.DateTimeField(default=timezone.now)
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-first_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "kind"],
                condition=models.Q(resolved_at=None),
                name="providers_provideralert_one_open",
            ),
        ]

    def __str__(self):
        return f"{self.provider}: {self.get_kind_display()}"
