"""
What can go wrong between this server and a provider.

    ProviderError
    ├── Unreachable         no connection, or it broke before an answer
    ├── TimedOut            the provider took longer than it may
    ├── Broken              the answer was cut off or is no answer of its dialect
    │   └── StreamError     the provider said in mid-stream that it failed
    └── Rejected            the provider answered with an error status
        └── OwnAccount      …about the account this server uses there: never the caller's fault
"""


class ProviderError(Exception):
    """``message`` is safe to show to the caller; ``detail`` is for the log."""

    def __init__(self, message, detail=""):
        super().__init__(message)
        self.message = message
        self.detail = detail


class Unreachable(ProviderError):
    """``timeout`` is ``connect`` where the connection was not there in time; nothing was sent then."""

    def __init__(self, message, detail="", *, timeout=None):
        super().__init__(message, detail)
        self.timeout = timeout


class TimedOut(ProviderError):
    """``timeout`` says which: ``first_byte`` before anything of the answer, ``idle`` in the middle of it."""

    def __init__(self, message, detail="", *, timeout):
        super().__init__(message, detail)
        self.timeout = timeout


class Broken(ProviderError):
    pass


class StreamError(Broken):
    def __init__(self, message, code=None):
        super().__init__(message)
        self.code = code


class Rejected(ProviderError):
    """An error answer: its status, and what its body said in the terms of its dialect."""

    def __init__(self, message, *, status, code=None, param=None, retry_after=None, detail=""):
        super().__init__(message, detail)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


class OwnAccount(Rejected):
    pass
