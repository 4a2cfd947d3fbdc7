"""The page of a fault of ours."""

from django.http import HttpResponseServerError
from django.template import loader
from django.utils.translation import get_language
from django.views.decorators.csrf import requires_csrf_token


@requires_csrf_token
def server_error(request):
    """The fault's page with the number to look for in the log; asks nothing of the database, which may be the fault."""
    context = {"request_id": getattr(request, "id", ""), "LANGUAGE_CODE": get_language()}
    return HttpResponseServerError(loader.render_to_string("500.html", context))
