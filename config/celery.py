"""The Celery application: slow and periodic work. The gateway and the console answer without any worker."""

import logging
import os
import signal
import warnings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from celery import Celery, signals
from celery.platforms import SecurityWarning
from celery.schedules import crontab
from celery.worker import state
from django.conf import settings

# Redis gives a task out again when it has not been acknowledged for so long: more than any task may take.
VISIBILITY_SECONDS = 30 * 60
# A web process does the same where no worker did for twice as long: gateway.housekeeping.
ALERT_SECONDS = 15


def broker_options(url, folder):
    """Transport options for the broker at ``url``; the folders of the embedded one are made."""
    if not url.startswith("filesystem:"):
        return {
            "visibility_timeout": VISIBILITY_SECONDS,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
        }
    queue, control = folder / "queue", folder / "control"
    for path in (queue, control):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {
        "data_folder_in": str(queue),
        "data_folder_out": str(queue),
        "control_folder": str(control),
        "store_processed": False,
    }


app = Celery("comptoir")
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    broker_transport_options=broker_options(settings.CELERY_BROKER_URL, settings.CELERY_DATA_DIR),
    broker_connection_retry_on_startup=True,
    # A task takes its work from a table and may run twice; one that is lost is swept up again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    task_serializer="json",
    accept_content=["json"],
    timezone="UTC",
    beat_schedule_filename=str(settings.CELERY_DATA_DIR / "beat"),
    beat_schedule={
        "clear expired sessions": {
            "task": "console.tasks.clear_expired_sessions",
            "schedule": crontab(hour=3, minute=20),
        },
        "delete expired responses": {
            "task": "usage.tasks.delete_expired_responses",
            "schedule": crontab(hour=3, minute=50),
        },
        # One that waits so long is late: the next does its work.
        "send alerts": {
            "task": "usage.tasks.send_alerts",
            "schedule": ALERT_SECONDS,
            "options": {"expires": ALERT_SECONDS},
        },
        "delete old deliveries": {
            "task": "usage.tasks.delete_old_deliveries",
            "schedule": crontab(hour=4, minute=10),
        },
        "delete old leases": {"task": "usage.tasks.delete_old_leases", "schedule": crontab(hour=4, minute=30)},
        "promote organizations": {"task": "usage.tasks.promote_organizations", "schedule": crontab(minute=20)},
        "check books": {"task": "usage.tasks.check_books", "schedule": crontab(minute=40)},
    },
)
settings.CELERY_DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
app.autodiscover_tasks()


# It is about messages that are pickled; ours are JSON.
warnings.filterwarnings("ignore", category=SecurityWarning)


@signals.setup_logging.connect
def keep_logging(loglevel, **_):
    """Leave the logging that Django has set up; Celery would replace it."""
    logging.getLogger("celery").setLevel(loglevel)
    logging.getLogger("kombu").setLevel(logging.ERROR)


@signals.worker_ready.connect
def fill_catalog(**_):
    """Have the catalogue of models written, where another version than the last one starts."""
    app.send_task("providers.tasks.fill_catalog")


@signals.worker_ready.connect
def leave_at_once_when_idle(**_):
    """End at the first SIGTERM where no task is running: Celery would take four seconds to notice it."""
    wait_for_tasks = signal.getsignal(signal.SIGTERM)

    def leave(number, frame):
        if not state.active_requests and not state.reserved_requests:
            os._exit(0)
        wait_for_tasks(number, frame)

    signal.signal(signal.SIGTERM, leave)
