"""Signing in and out, and where one arrives."""

import threading

from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.decorators import login_required
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from console.addresses import base_url
from console.forms import SignInForm
from console.models import User, Workspace

# Passwords that are checked at a time: each costs memory and a core's time, and anybody may ask for it.
CHECKS = threading.BoundedSemaphore(2)
LONGEST_QUEUE = 5.0


@require_http_methods(["GET", "POST"])
@sensitive_post_parameters("password")
def sign_in(request):
    """Open a session for an e-mail and password that match, and go to ``next`` on this server."""
    if request.user.is_authenticated:
        return redirect(_next(request) or "console:start")
    form, failed, busy = SignInForm(request.POST or None), False, False
    if request.method == "POST" and form.is_valid():
        if busy := not CHECKS.acquire(timeout=LONGEST_QUEUE):
            user = None
        else:
            try:
                user = authenticate(request, **form.credentials)
            finally:
                CHECKS.release()
        if user is not None:
            login(request, user)
            return redirect(_next(request) or "console:start")
        if failed := not busy:
            form.ask_again()
    context = {
        "form": form,
        "failed": failed,
        "busy": busy,
        "next": _next(request),
        "base_url": base_url(request),
        "is_first_time": not User.objects.exclude(last_login=None).exists(),
    }
    status = 503 if busy else 422 if failed or form.errors else 200
    return render(request, "console/sign_in.html", context, status=status)


@require_POST
def sign_out(request):
    """End the session on the server too."""
    logout(request)
    return redirect("console:sign_in")


@login_required
@require_GET
def start(request):
    """Go to the workspace used last, or to the first; say so where there is none."""
    workspaces = Workspace.objects.filter(organization__members__user=request.user)
    workspace = (
        workspaces.filter(pk=request.user.last_workspace_id).first()
        or workspaces.order_by("organization_id", "created_at", "pk").first()
    )
    return redirect(workspace) if workspace else render(request, "console/no_workspace.html")


def _next(request):
    """Where the reader wanted to go: an address of this server, or nothing."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    same = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if same else ""
