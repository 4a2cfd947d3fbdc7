"""Which providers rest for a while after failing time and again."""

import time

from providers.errors import OwnAccount, Rejected, Unreachable

# The caller's own mistakes say nothing of the provider.
CALLERS_STATUSES = {400, 404, 413, 415, 422}


class Rest:
    """How a target or a provider that keeps failing is doing: it rests ``until`` then, and is tried once after that."""

    __slots__ = ("failures", "on_trial", "seconds", "until")

    def __init__(self):
        self.failures = 0
        self.seconds = 0.0
        self.until = 0.0
        self.on_trial = False


class Health:
    """
    Which targets rest after failing time and again, in this process.

    A resting one stands behind the others and is never refused: where nobody else is left, it is asked. When its rest
    is over one request tries it; the next rest is twice as long, up to ``LONGEST``.
    """

    FAILURES = 3
    SHORTEST = 5.0
    LONGEST = 120.0

    def __init__(self):
        self._rests: dict[tuple, Rest] = {}

    def ordered(self, targets):
        """``targets`` with those that rest behind the others."""
        if not self._rests:
            return targets
        now = time.monotonic()
        return sorted(targets, key=lambda target: self._rests_at(target, now))

    def _rests_at(self, target, now):
        resting = False
        for key in _keys(target):
            rest = self._rests.get(key)
            if rest is None or not rest.until:
                continue
            if rest.until <= now:
                # This request is its trial; until it has ended, others go elsewhere.
                rest.until, rest.on_trial = now + rest.seconds, True
            else:
                resting = True
        return resting

    def succeeded(self, target):
        if self._rests:
            for key in _keys(target):
                self._rests.pop(key, None)

    def failed(self, target, error):
        """Count a failure of the provider's; a caller's mistake is none."""
        if isinstance(error, Rejected) and not isinstance(error, OwnAccount) and error.status in CALLERS_STATUSES:
            return
        key = _keys(target)[isinstance(error, Unreachable | OwnAccount)]
        rest = self._rests.setdefault(key, Rest())
        rest.failures += 1
        asked = getattr(error, "retry_after", None) or 0
        if rest.failures < self.FAILURES and not asked and not isinstance(error, OwnAccount):
            return
        now = time.monotonic()
        if rest.until <= now or rest.on_trial:
            rest.seconds = min(max(rest.seconds * 2, self.SHORTEST, asked), max(self.LONGEST, asked))
            rest.until, rest.on_trial = now + rest.seconds, False

    def resting(self):
        """How many targets and providers rest now."""
        now = time.monotonic()
        return sum(rest.until > now for rest in self._rests.values())


def _keys(target):
    """What may rest: the model for what it alone suffers, its provider for what all its models do."""
    return ("model", target.provider_model_id), ("provider", target.provider_id)
