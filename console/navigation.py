"""What the sidebar shows, for every page that has a workspace."""


def navigation(request):
    """The reader's organization, workspaces and place, lazily: pages without a sidebar cost no query."""
    workspace = getattr(request, "workspace", None)
    if workspace is None:
        return {}
    return {
        "workspace": workspace,
        "organization": workspace.organization,
        "member": request.member,
        "workspaces": workspace.organization.workspaces.all(),
    }
