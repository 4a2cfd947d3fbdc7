"""Who is asking: people, organizations, workspaces and the keys their programs carry."""

import itertools

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console import ids


class UserManager(BaseUserManager):
    def create_user(self, email, password=None, **fields):
        """A person who may sign in with ``email``, kept in lower case, and ``password``."""
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.full_clean(exclude=["password"])
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, email):
        return self.get(email=email.strip().lower())


class User(AbstractBaseUser):
    """A person. What they may do stands in their memberships."""

    class Theme(models.TextChoices):
        SYSTEM = "system", _("As the system")
        LIGHT = "light", _("Light")
        DARK = "dark", _("Dark")

    uid = models.CharField(max_length=40, unique=True, default=ids.new_user_id, editable=False)
    email = models.EmailField(_("e-mail"), unique=True)
    name = models.CharField(_("name"), max_length=80, blank=True)
    language = models.CharField(_("language"), max_length=8, blank=True, help_text=_("Empty: as the browser asks."))
    theme = models.CharField(_("theme"), max_length=8, choices=Theme, default=Theme.SYSTEM)
    last_workspace = models.ForeignKey("Workspace", models.SET_NULL, null=True, blank=True, related_name="+")
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = UserManager()

    USERNAME_FIELD = "email"

    def __str__(self):
        return self.name or self.email


class Organization(models.Model):
    """Who pays: owns workspaces, providers and the currency and calendar that its money is counted in."""

    uid = models.CharField(max_length=40, unique=True, default=ids.new_organization_id, editable=False)
    name = models.CharField(_("name"), max_length=80)
    slug = models.SlugField(max_length=60, unique=True)
    currency = models.CharField(_("currency"), max_length=3, default="USD")
    time_zone = models.CharField(_("time zone"), max_length=64, default="UTC")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self):
        return self.name


class Flavour(models.TextChoices):
    """Whose extras an OpenAI-shaped answer carries; ``providers.flavours`` has one for each."""

    OPENAI = "openai", "OpenAI"
    IKALAS = "ikalas", "Ikalas"
    CLOUD_TEMPLE = "cloud-temple", "Cloud Temple"
    EVOLINK = "evolink", "EvoLink"
    EKTOS = "ektos", "Ektos"


class Workspace(models.Model):
    """A part of an organization with keys and usage of its own. Its slug is unique on the whole server."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="workspaces")
    uid = models.CharField(max_length=40, unique=True, default=ids.new_workspace_id, editable=False)
    name = models.CharField(_("name"), max_length=80)
    slug = models.SlugField(max_length=60, unique=True)
    series = models.PositiveSmallIntegerField(default=1, help_text="Its colour: one of the nine series of tokens.css.")
    flavour = models.CharField(_("answer style"), max_length=16, choices=Flavour, default=Flavour.OPENAI)
    stores_responses = models.BooleanField(_("stored responses"), default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["created_at", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                name="console_workspace_name",
                violation_error_message=_("This organization already has a workspace with that name."),
            ),
        ]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("console:home", args=[self.slug])


class Member(models.Model):
    """A person's place in an organization."""

    class Role(models.TextChoices):
        OWNER = "owner", _("Owner")
        ADMIN = "admin", _("Admin")
        DEVELOPER = "developer", _("Developer")

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="members")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role, default=Role.DEVELOPER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "user"], name="console_member_once")]

    def __str__(self):
        return f"{self.user} in {self.organization}"

    def may(self, role):
        """Whether this place includes what ``role`` may do."""
        ladder = [self.Role.DEVELOPER, self.Role.ADMIN, self.Role.OWNER]
        return ladder.index(self.role) >= ladder.index(role)


class ApiKeyQuerySet(models.QuerySet):
    def active(self, now=None):
        """Keys that open the gateway now."""
        return self.filter(
            Q(expires_at=None) | Q(expires_at__gt=now or timezone.now()), revoked_at=None, disabled_at=None
        )

    def is_free(self, name):
        """Whether a new key may have that name."""
        return not self.filter(name=name, revoked_at=None).exists()

    def free_name(self, name):
        """``name``, or the first of ``name-2``, ``name-3`` and so on that a new key may have, in one query."""
        taken = set(self.filter(name__startswith=name, revoked_at=None).values_list("name", flat=True))
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(free for free in names if free not in taken)

    def for_list(self):
        """Everything that one row of the key list shows, in one query."""
        return self.select_related("created_by").order_by("-created_at", "-pk")

    def matching(self, text):
        """Keys whose name holds ``text`` or whose secret ends with it; all of them for an empty one."""
        return self.filter(Q(name__icontains=text) | Q(hint__iendswith=text.lstrip("…"))) if text else self

    def of_status(self, status, now=None):
        """Keys that ``ApiKey.status`` describes as ``status``."""
        return self.filter(self._statuses(now)[status])

    def counts(self, now=None):
        """How many keys there are of each status, and of ``all``, in one query."""
        sums = {name: Count("pk", filter=condition) for name, condition in self._statuses(now).items()}
        return self.aggregate(all=Count("pk"), **sums)

    def _statuses(self, now):
        expired = Q(expires_at__lte=now or timezone.now())
        live = Q(revoked_at=None) & ~(Q(expires_at__isnull=False) & expired)
        return {
            ApiKey.Status.ACTIVE.value: live & Q(disabled_at=None),
            ApiKey.Status.DISABLED.value: live & Q(disabled_at__isnull=False),
            ApiKey.Status.EXPIRED.value: Q(revoked_at=None) & expired,
            ApiKey.Status.REVOKED.value: Q(revoked_at__isnull=False),
        }


class ApiKey(models.Model):
    """
    A secret that lets a program call the gateway on behalf of one workspace.

    Only its keyed digest and last four characters are stored; ``console.services.create_api_key`` shows it once.
    """

    class Status(models.TextChoices):
        ACTIVE = "active", _("Active")
        DISABLED = "disabled", _("Disabled")
        EXPIRED = "expired", _("Expired")
        REVOKED = "revoked", _("Revoked")

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="api_keys")
    uid = models.CharField(max_length=40, unique=True, default=ids.new_api_key_id, editable=False)
    name = models.CharField(_("name"), max_length=80)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    hint = models.CharField(max_length=4, editable=False)
    flavour = models.CharField(
        _("answer style"), max_length=16, choices=Flavour, blank=True, help_text="Empty: as the workspace has it."
    )
    stores_responses = models.BooleanField(_("stored responses"), default=True, help_text="If the workspace does.")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "name"],
                condition=Q(revoked_at=None),
                name="console_apikey_one_active_name",
                violation_error_message=_("This workspace already has a key with that name."),
            ),
        ]

    def __str__(self):
        return self.name

    @property
    def status(self):
        if self.revoked_at:
            return self.Status.REVOKED
        if self.expires_at and self.expires_at <= timezone.now():
            return self.Status.EXPIRED
        return self.Status.DISABLED if self.disabled_at else self.Status.ACTIVE


class AuditEvent(models.Model):
    """One change: who did what to which object. Written in the transaction of the change itself."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="audit_events")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    actor_label = models.CharField(max_length=254, help_text="The e-mail at that time, or “command line”.")
    action = models.CharField(max_length=60)
    target_uid = models.CharField(max_length=40)
    target_label = models.CharField(max_length=200)
    details = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        indexes = [models.Index(fields=["organization", "-created_at"], name="console_audit_latest")]

    def __str__(self):
        return f"{self.actor_label}: {self.action} {self.target_label}"


class Revision(models.Model):
    """The version of all that the gateway's snapshot is made of: one row, moved by each change."""

    number = models.PositiveBigIntegerField(default=0)

    def __str__(self):
        return str(self.number)
