"""
What the client programs share: a line of JSON in for each question, a line of JSON out for what the client made of it.

A client runs in an environment of its own, so nothing here imports more than the standard library. The first line has
what all questions share (``Task``); a question names the function that asks it and a model.
"""

import json
import sys
import traceback


class Task:
    """Where to ask and what about."""

    def __init__(self, shared):
        self.__dict__.update(shared)

    @property
    def openai_tool(self):
        return {"type": "function", "function": self.tool}

    @property
    def anthropic_tool(self):
        tool = dict(self.tool)
        return tool | {"input_schema": tool.pop("parameters")} if tool.pop("strict", None) is None else tool

    @property
    def image_url(self):
        return f"data:image/png;base64,{self.image}"


def serve(make):
    """Answer questions until there are no more: ``make(task)`` gives the functions, and how an exception reads."""
    task = Task(json.loads(sys.stdin.readline()))
    asks, read_error = make(task)
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    print(json.dumps({"ready": sorted(asks)}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = asks[question["ask"]](**question["with"])
        except Exception as error:
            classes = [each.__name__ for each in type(error).__mro__]
            answer = {"error": read_error(error) | {"classes": classes}, "trace": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def usage(input=None, cache_read=None, output=None, reasoning=None):
    """What a client says was used: ``input`` has the cached tokens in it."""
    return {"input": input, "cache_read": cache_read, "output": output, "reasoning": reasoning}


def read_api_error(error):
    """What the exceptions of both official libraries hold."""
    body = error.body if isinstance(getattr(error, "body", None), dict) else {}
    inner = body.get("error") if isinstance(body.get("error"), dict) else body
    return {
        "status": getattr(error, "status_code", None),
        "message": getattr(error, "message", str(error)),
        "kind": inner.get("type"),
        "code": getattr(error, "code", None),
        "request_id": getattr(error, "request_id", None),
    }
