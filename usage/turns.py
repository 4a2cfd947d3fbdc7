"""Changes of what holds for one organization, one after the other."""

from console.models import Organization


def take_turn(organization):
    """
    Wait for whoever changes limits, groups, tier or webhooks of the organization, and have others wait in their turn
    until the transaction ends.

    So two who set the same at once are one who sets it and one who changes it. To be called before any other row is
    held.
    """
    Organization.objects.select_for_update(no_key=True).filter(pk=organization.pk).first()
