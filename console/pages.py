"""What holds for every page: it is kept by no cache, and a session that has ended leads a fragment to the sign-in."""

from asgiref.sync import iscoroutinefunction
from django.urls import reverse
from django.utils.decorators import sync_and_async_middleware
from django_htmx.http import HttpResponseClientRedirect


@sync_and_async_middleware
def PageMiddleware(get_response):
    """
    Keep pages out of caches, and turn a fragment's redirect to the sign-in into one of the whole page.

    A fragment and its page share an address: a browser that kept the one would show it for the other on "back".
    """

    def finish(request, response):
        response.setdefault("Cache-Control", "no-store")
        sign_in = reverse("console:sign_in")
        if request.htmx and response.status_code == 302 and response.url.split("?")[0] == sign_in:
            here = request.htmx.current_url_abs_path
            return HttpResponseClientRedirect(reverse("console:sign_in", query={"next": here} if here else None))
        return response

    if iscoroutinefunction(get_response):

        async def middleware(request):
            return finish(request, await get_response(request))
    else:

        def middleware(request):
            return finish(request, get_response(request))

    return middleware
