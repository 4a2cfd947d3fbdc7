"""The gateway as a plain ASGI application."""


async def gateway(scope, receive, send):
    """Answer API requests and hold the process's lifespan."""
    raise NotImplementedError
