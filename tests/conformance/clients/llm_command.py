"""The command ``llm``: its own lines of arguments, run one after another in one process."""

import base64
import json
import os
import re
import tempfile
from pathlib import Path

home = Path(tempfile.mkdtemp(prefix="llm-"))
os.environ |= {"LLM_USER_PATH": str(home), "LLM_LOAD_PLUGINS": ""}

import click.testing  # noqa: E402
import llm.cli  # noqa: E402
import yaml  # noqa: E402
from worker import serve, usage  # noqa: E402

USAGE = re.compile(r"Token usage: ([\d,]+) input, ([\d,]+) output")


class CommandFailed(Exception):
    """The command ended with an error on its standard error."""


def read_error(error):
    if not isinstance(error, CommandFailed):
        raise error
    message = str(error)
    status = re.search(r"Error code: (\d+)", message)
    return {"status": status and int(status[1]), "message": message}


def make(task):
    picture = home / "picture.png"
    picture.write_bytes(base64.b64decode(task.image))
    runner = click.testing.CliRunner()
    name, arguments, _ = task.call
    function = f"def {name}(city: str):\n    'Tell the weather of a city.'\n    return {task.result!r}\n"

    def run(*arguments, key=task.key):
        done = runner.invoke(llm.cli.cli, [*arguments, "--key", key])
        if done.exit_code:
            raise CommandFailed(done.stderr or repr(done.exception))
        return done

    def prompt_model(model, prompt, *arguments, **fields):
        """``llm -m MODEL PROMPT`` for a model that extra-openai-models.yaml tells of."""
        flags = {"vision": True, "supports_schema": True, "supports_tools": True}
        entry = {"model_id": model, "model_name": model, "api_base": f"{task.url}/v1", "api_key_name": "comptoir"}
        entry |= flags | fields
        (home / "extra-openai-models.yaml").write_text(yaml.safe_dump([entry]))
        system = () if fields.get("completion") else ("-s", task.system)
        done = run("prompt", "-m", model, *system, "--usage", *arguments, prompt)
        # A line for each request that it made
        numbers = [[int(number.replace(",", "")) for number in line] for line in USAGE.findall(done.stderr)]
        seen = {"text": done.stdout.removesuffix("\n"), "errors": done.stderr}
        told = usage(sum(line[0] for line in numbers), output=sum(line[1] for line in numbers)) if numbers else None
        return seen | {"usage": told}

    def plain(model, prompt):
        return prompt_model(model, prompt, "--no-stream", "-o", "max_tokens", str(task.limit))

    def stream(model, prompt):
        return prompt_model(model, prompt, "-o", "max_tokens", str(task.limit))

    def tools_loop(model, prompt, *arguments):
        return prompt_model(model, prompt, "--functions", function, "--td", *arguments)

    def tools(model, prompt):
        return tools_loop(model, prompt, "--no-stream")

    def image(model, prompt):
        return prompt_model(model, prompt, "--no-stream", "-a", str(picture))

    def structured(model, prompt):
        answer = prompt_model(model, prompt, "--no-stream", "--schema", json.dumps(task.schema))
        return answer | {"data": json.loads(answer["text"])}

    def wrong_key(model, prompt):
        run("openai", "endpoint", f"{task.url}/v1", "-m", model, prompt, key="sk-wrong")

    def completion(model, prompt):
        return prompt_model(model, prompt, "--no-stream", completion=True)

    def response(model, prompt):
        return prompt_model(model, prompt, "--no-stream", responses=True)

    def response_stream(model, prompt):
        return prompt_model(model, prompt, responses=True)

    def models():
        return {"ids": run("openai", "endpoint", f"{task.url}/v1", "--models").stdout.split()}

    asks = {
        "chat.plain": plain,
        "chat.stream": stream,
        "chat.tool_loop": tools,
        "chat.tool_loop_stream": tools_loop,
        "chat.image": image,
        "chat.structured": structured,
        "chat.unknown_model": plain,
        "chat.wrong_key": wrong_key,
        "chat.refused": plain,
        "completions.plain": completion,
        "responses.plain": response,
        "responses.stream": response_stream,
        "models.list": models,
    }
    return asks, read_error


serve(make)
