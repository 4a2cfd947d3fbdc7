"""Everything the environment decides, in one place. README, "Configuration", lists the variables."""

from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from django.utils.csp import CSP
from django.utils.translation import gettext_lazy as _

from config.env import env_bool, env_int, env_list, env_mailers, env_secret, env_str, make_folder, stored_secret
from config.logs import logging_config
from providers.origins import InvalidBaseUrl, origin_of

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env_str("COMPTOIR_DATA") or BASE_DIR / "var").resolve()
SECRETS_DIR = DATA_DIR / "secrets"

# Identity --------------------------------------------------------------------------------------------------------

DEBUG = env_bool("COMPTOIR_DEBUG")
SECRET_KEY = env_secret("SECRET_KEY") or stored_secret(SECRETS_DIR, "secret_key")
SECRET_KEY_FALLBACKS = env_list("SECRET_KEY_FALLBACKS")
API_KEY_PEPPER = (env_secret("API_KEY_PEPPER") or stored_secret(SECRETS_DIR, "api_key_pepper")).encode()
# The ring that wraps provider credentials, newest first: any text of 32 characters or more, comma-separated.
CREDENTIAL_KEYS = [
    key.strip()
    for key in (env_secret("CREDENTIAL_KEYS") or stored_secret(SECRETS_DIR, "credential_key")).split(",")
    if key.strip()
]
for name, value in (
    ("SECRET_KEY", SECRET_KEY),
    ("API_KEY_PEPPER", API_KEY_PEPPER),
    *(("CREDENTIAL_KEYS", k) for k in CREDENTIAL_KEYS),
):
    if len(value) < 32:
        raise ImproperlyConfigured(f"{name} must hold at least 32 characters.")

# Where browsers and programs reach this server, say https://ai.example.org. Over https it turns the secure profile on.
PUBLIC_URL = env_str("COMPTOIR_PUBLIC_URL").rstrip("/")
_public = urlsplit(PUBLIC_URL)
if PUBLIC_URL and (_public.scheme not in {"http", "https"} or not _public.hostname or _public.path):
    raise ImproperlyConfigured(f"COMPTOIR_PUBLIC_URL must look like https://ai.example.org, not {PUBLIC_URL!r}.")
LISTENS_ON_NETWORK = env_str("COMPTOIR_HOST") not in {"", "localhost", "127.0.0.1", "::1"}
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *env_list("COMPTOIR_ALLOWED_HOSTS")]
if PUBLIC_URL:
    ALLOWED_HOSTS.append(_public.hostname)
elif LISTENS_ON_NETWORK:
    # Bound to the network without a public address: the operator opened it on purpose and is told so at start.
    ALLOWED_HOSTS.append("*" if env_str("COMPTOIR_HOST") in {"0.0.0.0", "::"} else env_str("COMPTOIR_HOST"))  # noqa: S104
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_URL else []

# Apps and requests -----------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "console",
    "providers",
    "usage",
    "gateway",
    "playground",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "config.logs.RequestIdMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "console.language.LanguageMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "console.pages.PageMiddleware",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": False,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.csp",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "console.navigation.navigation",
            ],
            "builtins": ["django.templatetags.i18n", "django.templatetags.static", "console.templatetags.console"],
        },
    }
]

# Database --------------------------------------------------------------------------------------------------------

DATABASES = {
    "default": dj_database_url.parse(
        env_secret("DATABASE_URL") or f"sqlite:///{DATA_DIR / 'comptoir.sqlite3'}",
        # Under ASGI each page has a thread of its own, and a connection left open would stay with it, used by nobody.
        conn_max_age=0,
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    make_folder(Path(DATABASES["default"]["NAME"]).parent)
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 5,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-4000;",
    }
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # A server that vanished from the network must not hold a thread for the two hours that TCP would wait.
    DATABASES["default"]["OPTIONS"] = DATABASES["default"].get("OPTIONS", {}) | {
        "connect_timeout": 5,
        "tcp_user_timeout": 15_000,
    }
else:
    raise ImproperlyConfigured("DATABASE_URL must name sqlite or postgresql.")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# People and their sessions ---------------------------------------------------------------------------------------

AUTH_USER_MODEL = "console.User"
LOGIN_URL = "console:sign_in"
LOGIN_REDIRECT_URL = "console:start"
LOGOUT_REDIRECT_URL = "console:sign_in"
PASSWORD_HASHERS = ["console.hashers.SmallArgon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
SESSION_COOKIE_NAME = "comptoir_session"
CSRF_COOKIE_NAME = "comptoir_csrf"
LANGUAGE_COOKIE_NAME = "comptoir_language"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"

# Security --------------------------------------------------------------------------------------------------------

SECURE_CSP = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF, CSP.NONCE],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    "manifest-src": [CSP.SELF],
    "form-action": [CSP.SELF],
    "base-uri": [CSP.NONE],
    "frame-ancestors": [CSP.NONE],
    "object-src": [CSP.NONE],
}
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = []
if _public.scheme == "https":
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = env_int("COMPTOIR_HSTS_SECONDS", 31_536_000, least=0, most=63_072_000)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = env_bool("COMPTOIR_HSTS_SUBDOMAINS")
    # Both bind every name below this server's, for as long as a browser remembers: not to be decided by default.
    SILENCED_SYSTEM_CHECKS += ["security.W005", "security.W021"]
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = True
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-comptoir_session", "__Host-comptoir_csrf"

# Exact origins, say http://localhost:11434, that providers may have although they are private or not https.
try:
    ALLOWED_PRIVATE_ORIGINS = [origin_of(origin) for origin in env_list("COMPTOIR_ALLOWED_PRIVATE_ORIGINS")]
except InvalidBaseUrl:
    raise ImproperlyConfigured(
        "COMPTOIR_ALLOWED_PRIVATE_ORIGINS must list origins such as http://localhost:11434, separated by commas."
    ) from None
# Where this server listens: no provider may stand there, nor at its database or broker, whatever is approved.
LISTEN_PORT = env_int("COMPTOIR_PORT", 8000, least=0, most=65_535)
REDIS_URL = env_secret("REDIS_URL")
# Where this machine's own model listens; set by `./comptoir up`.
LOCAL_MODEL_URL = env_str("COMPTOIR_LOCAL_MODEL_URL")

# First start -----------------------------------------------------------------------------------------------------

# Read once, when the database has no organization yet.
OWNER_EMAIL = env_str("COMPTOIR_OWNER_EMAIL") or "owner@localhost"
OWNER_PASSWORD = env_secret("COMPTOIR_OWNER_PASSWORD")
FIRST_CURRENCY = (env_str("COMPTOIR_CURRENCY") or "USD").upper()
FIRST_TIME_ZONE = env_str("COMPTOIR_TIME_ZONE")
# A generated password stands here from then until `./comptoir up` has shown it.
FIRST_SIGN_IN_FILE = SECRETS_DIR / "first_sign_in"

# Language and time -----------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("fr", _("French")), ("es", _("Spanish"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_TZ = True
TIME_ZONE = "UTC"

# Static files ----------------------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Not those of apps: django-htmx brings its own copies of htmx.
STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
STATIC_ROOT = DATA_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "config.storage.HashedStaticFilesStorage"},
}

# Gateway ---------------------------------------------------------------------------------------------------------

# /metrics: for this bearer where it is set; without one open ("") to this machine alone, closed (None) elsewhere.
METRICS_TOKEN = env_secret("COMPTOIR_METRICS_TOKEN") or (None if PUBLIC_URL or LISTENS_ON_NETWORK else "")
# How many web processes this machine runs: at least so many share what is limited by the minute, without Redis.
WEB_PROCESSES = env_int("COMPTOIR_WORKERS", 1, least=1, most=1024)
JOURNAL_DIR = DATA_DIR / "journal"
JOURNAL_KEEP_HOURS = env_int("COMPTOIR_JOURNAL_KEEP_HOURS", 24, least=0, most=24 * 90)

# Mail ------------------------------------------------------------------------------------------------------------

# Without one, alerts are told in the console and to webhooks alone.
MAILERS = env_mailers("EMAIL_URL")
if not MAILERS:
    SILENCED_SYSTEM_CHECKS += ["mail.W001"]
DEFAULT_FROM_EMAIL = env_str("COMPTOIR_EMAIL_FROM") or f"Comptoir <comptoir@{_public.hostname or 'localhost'}>"

# Tasks -----------------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = env_secret("CELERY_BROKER_URL") or REDIS_URL or "filesystem://"
CELERY_DATA_DIR = DATA_DIR / "celery"

# Logging ---------------------------------------------------------------------------------------------------------

LOG_LEVEL = env_str("COMPTOIR_LOG_LEVEL", "INFO").upper()
LOGGING_CONFIG = None
logging_config(LOG_LEVEL, env_str("COMPTOIR_LOG_FORMAT"))
