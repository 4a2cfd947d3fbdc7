"""Which providers rest for a while after failing time and again."""

import time

from providers.errors import OwnAccount, Rejected, Unreachable

# The caller's own mistakes: the provider that tells of them is well, and every other would say the same.
FINAL_STATUSES = {400, 413, 415, 422}


def is_callers_mistake(error):
    """Whether ``error``, a ``ProviderError``, is about the request and not about who was asked."""
    return isinstance(error, Rejected) and not isinstance(error, OwnAccount) and error.status in FINAL_STATUSES


class Rest:
    """How a target or a provider that keeps failing is doing: it rests ``until`` then, and is tried once after that."""

    __slots__ = ("failed_at", "failures", "on_trial", "seconds", "until")

    def __init__(self):
        self.failures = 0
        self.failed_at = 0.0
        self.seconds = 0.0
        self.until = 0.0
        self.on_trial = False


class Health:
    """
    Which targets rest after failing time and again, in this process.

    A resting one stands behind the others and is never refused: where nobody else is left, it is asked. When its rest
    is over one request tries it; the next rest is twice as long, up to ``LONGEST``. A provider that says how long it
    wants to be left alone is taken at its word. One that is renewed, say by another credential, is as one never asked.
    """

    FAILURES = 3
    SHORTEST = 5.0
    LONGEST = 120.0
    # Of one that nobody has asked for so long nothing is known any more.
    REMEMBERED = 86_400.0

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._rests: dict[tuple, Rest] = {}

    def ordered(self, targets):
        """``targets`` with those that rest behind the others."""
        if not self._rests:
            return targets
        now = self._clock()
        return sorted(targets, key=lambda target: any(rest.until > now for rest in self._rests_of(target)))

    def asked(self, target):
        """Note that one of several is asked: the trial of a target whose rest is over, and others go elsewhere."""
        if self._rests:
            now = self._clock()
            for rest in self._rests_of(target):
                if rest.until and rest.until <= now:
                    rest.until, rest.on_trial = now + min(rest.seconds, self.LONGEST), True

    def succeeded(self, target):
        """``target`` answered: it is well."""
        if self._rests:
            for key in _keys(target):
                self._rests.pop(key, None)

    def failed(self, target, error):
        """Count a failure of the provider's; one that tells its caller of a mistake is well."""
        if is_callers_mistake(error):
            self.succeeded(target)
            return
        key = _keys(target)[isinstance(error, Unreachable | OwnAccount)]
        now = self._clock()
        if key not in self._rests:
            self._forget(now)
        rest = self._rests.setdefault(key, Rest())
        rest.failures += 1
        rest.failed_at = now
        asked = getattr(error, "retry_after", None) or 0
        if rest.failures < self.FAILURES and not asked and not isinstance(error, OwnAccount):
            return
        if rest.until <= now or rest.on_trial:
            least = max(rest.seconds * 2, asked) or self.SHORTEST
            rest.seconds = min(least, max(self.LONGEST, asked))
            rest.until, rest.on_trial = now + rest.seconds, False

    def _forget(self, now):
        """Drop what is long over: targets that are gone, and what renewed ones were before."""
        since = now - self.REMEMBERED
        self._rests = {key: rest for key, rest in self._rests.items() if max(rest.failed_at, rest.until) > since}

    def _rests_of(self, target):
        return [rest for key in _keys(target) if (rest := self._rests.get(key))]


def _keys(target):
    """What may rest: the model for what it alone suffers, its provider for what all its models do."""
    return (
        ("model", target.provider_model_id, target.renewed_at),
        ("provider", target.provider_id, target.renewed_at),
    )
