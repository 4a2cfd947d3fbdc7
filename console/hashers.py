"""How passwords are hashed."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class SmallArgon2PasswordHasher(Argon2PasswordHasher):
    """
    Argon2id with 19 MiB and two passes, OWASP's first choice: Django's 100 MiB a sign-in is more than a process that
    also carries everybody's API calls should give to strangers.
    """

    memory_cost = 19 * 1024
    time_cost = 2
    parallelism = 1
