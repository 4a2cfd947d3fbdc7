"""The reader's theme and language."""

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from console.forms import PreferencesForm


@require_POST
def preferences(request):
    """Keep the theme or the language: with the profile, and the language of a visitor in a cookie."""
    form = PreferencesForm(request.POST)
    if not form.is_valid():
        return HttpResponse(status=422)
    chosen = {name: value for name, value in form.cleaned_data.items() if value}
    if request.user.is_authenticated and chosen:
        for name, value in chosen.items():
            setattr(request.user, name, value)
        request.user.save(update_fields=list(chosen))
    if request.htmx:
        response = HttpResponse(status=204)
    else:
        wanted = request.POST.get("next", "")
        same = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
        response = redirect(wanted if same else "console:start")
    if "language" in chosen:
        # Kept beside the profile's too: the sign-in page after signing out speaks the same language.
        response.set_cookie(
            settings.LANGUAGE_COOKIE_NAME,
            chosen["language"],
            max_age=365 * 86_400,
            secure=settings.LANGUAGE_COOKIE_SECURE,
            samesite=settings.LANGUAGE_COOKIE_SAMESITE,
            httponly=True,
        )
    return response
