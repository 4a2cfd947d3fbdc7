"""The language of a page: the profile's, then the cookie's (chosen before sign-in), then the browser's."""

from django.conf import settings
from django.utils import timezone, translation
from django.utils.cache import patch_vary_headers
from django.utils.decorators import sync_and_async_middleware


def choose_language(request, user):
    """The code of the language for this request, one of ``settings.LANGUAGES``."""
    codes = dict(settings.LANGUAGES)
    chosen = getattr(user, "language", "") or request.COOKIES.get(settings.LANGUAGE_COOKIE_NAME)
    return chosen if chosen in codes else translation.get_language_from_request(request)


@sync_and_async_middleware
def LanguageMiddleware(get_response):
    from asgiref.sync import iscoroutinefunction

    def begin(request, user):
        # console.access activates the organization's; a thread must not carry it into the next request.
        timezone.deactivate()
        translation.activate(choose_language(request, user))
        request.LANGUAGE_CODE = translation.get_language()

    def finish(response):
        patch_vary_headers(response, ["Accept-Language", "Cookie"])
        response.setdefault("Content-Language", translation.get_language())
        return response

    if iscoroutinefunction(get_response):

        async def middleware(request):
            begin(request, await request.auser())
            return finish(await get_response(request))
    else:

        def middleware(request):
            begin(request, request.user)
            return finish(get_response(request))

    return middleware
