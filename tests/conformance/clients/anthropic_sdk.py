"""The official library of Anthropic for Python, any major."""

import anthropic
from worker import read_api_error, serve, usage

MAX_TOKENS = 1500


def used(told):
    cached = told.cache_read_input_tokens or 0
    details = getattr(told, "output_tokens_details", None)
    return usage(
        told.input_tokens + cached + (told.cache_creation_input_tokens or 0),
        cached,
        told.output_tokens,
        details and details.thinking_tokens,
    )


def make(task):
    client = anthropic.Anthropic(base_url=task.url, api_key=task.key, max_retries=0)

    def talk(prompt):
        return [{"role": "user", "content": prompt}]

    def read(answer, request_id=None):
        blocks = answer.content
        return {
            "text": "".join(block.text for block in blocks if block.type == "text"),
            "tools": [[block.name, block.input, block.id] for block in blocks if block.type == "tool_use"],
            "reasoning": "".join(block.thinking for block in blocks if block.type == "thinking"),
            "stop": answer.stop_reason,
            "usage": used(answer.usage),
            "request_id": request_id or answer._request_id,
            "model": answer.model,
        }

    def plain(model, prompt, **fields):
        fields = {"messages": talk(prompt), "system": task.system, "max_tokens": MAX_TOKENS} | fields
        return read(client.messages.create(model=model, **fields))

    def stream(model, prompt, **fields):
        fields = {"messages": talk(prompt), "system": task.system, "max_tokens": MAX_TOKENS} | fields
        with client.messages.stream(model=model, **fields) as events:
            said = "".join(events.text_stream)
            final = events.get_final_message()
            return read(final, events.response.headers["request-id"]) | {"streamed": said}

    def tools(model, prompt):
        return plain(model, prompt, tools=[task.anthropic_tool])

    def tools_stream(model, prompt):
        return stream(model, prompt, tools=[task.anthropic_tool])

    def tool_result(model, prompt):
        name, arguments, call_id = task.call
        messages = [
            *talk(prompt),
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": call_id, "name": name, "input": arguments}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call_id, "content": task.result}],
            },
        ]
        return plain(model, prompt, messages=messages, tools=[task.anthropic_tool])

    def image(model, prompt):
        source = {"type": "base64", "media_type": "image/png", "data": task.image}
        parts = [{"type": "image", "source": source}, {"type": "text", "text": prompt}]
        return plain(model, prompt, messages=[{"role": "user", "content": parts}])

    def structured(model, prompt):
        import json

        answer = plain(model, prompt, output_config={"format": {"type": "json_schema", "schema": task.schema}})
        return answer | {"data": json.loads(answer["text"])}

    def reasoning(model, prompt):
        return plain(model, prompt, thinking={"type": "enabled", "budget_tokens": 1024})

    def wrong_key(model, prompt):
        wrong = client.with_options(api_key="sk-wrong")
        wrong.messages.create(model=model, messages=talk(prompt), max_tokens=MAX_TOKENS)

    def bad_field(model, prompt):
        client.messages.create(model=model, messages="no list", max_tokens=MAX_TOKENS)

    def count(model, prompt):
        answer = client.messages.count_tokens(model=model, system=task.system, messages=talk(prompt))
        return {"count": answer.input_tokens}

    def models():
        listed = [model.id for model in client.models.list()]
        return {"ids": listed, "one": client.models.retrieve(listed[0]).id}

    asks = {
        "messages.plain": lambda **question: plain(**question, max_tokens=task.limit),
        "messages.stream": lambda **question: stream(**question, max_tokens=task.limit),
        "messages.tools": tools,
        "messages.tools_stream": tools_stream,
        "messages.tool_result": tool_result,
        "messages.image": image,
        "messages.structured": structured,
        "messages.reasoning": reasoning,
        "messages.unknown_model": plain,
        "messages.wrong_key": wrong_key,
        "messages.bad_field": bad_field,
        "messages.refused": plain,
        "count_tokens.plain": count,
        "models.list": models,
    }
    return asks, read_api_error


serve(make)
