"""The official library of OpenAI for Python, any major."""

import json

import openai
from pydantic import BaseModel
from worker import read_api_error, serve, usage


class City(BaseModel):
    city: str
    population: int


def used(told):
    if told is None:
        return None
    return usage(
        told.prompt_tokens,
        told.prompt_tokens_details and told.prompt_tokens_details.cached_tokens,
        told.completion_tokens,
        told.completion_tokens_details and told.completion_tokens_details.reasoning_tokens,
    )


def make(task):
    client = openai.OpenAI(base_url=f"{task.url}/v1", api_key=task.key, max_retries=0)

    def talk(prompt):
        return [{"role": "system", "content": task.system}, {"role": "user", "content": prompt}]

    def read(answer):
        choice = answer.choices[0]
        calls = choice.message.tool_calls or []
        return {
            "text": choice.message.content,
            "tools": [[call.function.name, json.loads(call.function.arguments), call.id] for call in calls],
            "reasoning": getattr(choice.message, "reasoning_content", None),
            "stop": choice.finish_reason,
            "usage": used(answer.usage),
            "request_id": answer._request_id,
            "model": answer.model,
        }

    def plain(model, prompt, **fields):
        return read(client.chat.completions.create(model=model, messages=talk(prompt), **fields))

    def stream(model, prompt, **fields):
        options = {"include_usage": True}
        seen = {"text": "", "reasoning": "", "stop": None, "usage": None}
        calls = {}
        with client.chat.completions.create(
            model=model, messages=talk(prompt), stream=True, stream_options=options, **fields
        ) as chunks:
            seen["request_id"] = chunks.response.headers["x-request-id"]
            for chunk in chunks:
                seen["model"] = seen.get("model") or chunk.model
                seen["usage"] = used(chunk.usage) or seen["usage"]
                for choice in chunk.choices:
                    seen["text"] += choice.delta.content or ""
                    seen["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
                    seen["stop"] = choice.finish_reason or seen["stop"]
                    for call in choice.delta.tool_calls or []:
                        known = calls.setdefault(call.index, ["", "", ""])
                        known[0] += call.function.name or ""
                        known[1] += call.function.arguments or ""
                        known[2] += call.id or ""
        return seen | {"tools": [[name, json.loads(text), id] for name, text, id in calls.values()]}

    def tools(model, prompt, ask=plain):
        return ask(model, prompt, tools=[task.openai_tool], tool_choice="auto")

    def tools_stream(model, prompt):
        return tools(model, prompt, stream)

    def tool_result(model, prompt):
        name, arguments, call_id = task.call
        function = {"name": name, "arguments": json.dumps(arguments)}
        messages = [
            *talk(prompt),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call_id, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": call_id, "content": task.result},
        ]
        return read(client.chat.completions.create(model=model, messages=messages, tools=[task.openai_tool]))

    def image(model, prompt):
        parts = [
            {"type": "text", "text": prompt},
            {"type": "image_url", "image_url": {"url": task.image_url}},
        ]
        return read(client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}]))

    def structured(model, prompt):
        answer = client.chat.completions.parse(model=model, messages=talk(prompt), response_format=City)
        return read(answer) | {"data": answer.choices[0].message.parsed.model_dump()}

    def reasoning(model, prompt):
        return plain(model, prompt, reasoning_effort="low")

    def wrong_key(model, prompt):
        client.with_options(api_key="sk-wrong").chat.completions.create(model=model, messages=talk(prompt))

    def bad_field(model, prompt):
        client.chat.completions.create(model=model, messages="no list")

    def completion(model, prompt):
        answer = client.completions.create(model=model, prompt=prompt, max_tokens=64)
        choice = answer.choices[0]
        return {
            "text": choice.text,
            "stop": choice.finish_reason,
            "usage": used(answer.usage),
            "request_id": answer._request_id,
        }

    def completion_stream(model, prompt):
        seen = {"text": "", "stop": None, "usage": None}
        with client.completions.create(
            model=model, prompt=prompt, max_tokens=64, stream=True, stream_options={"include_usage": True}
        ) as chunks:
            seen["request_id"] = chunks.response.headers["x-request-id"]
            for chunk in chunks:
                seen["usage"] = used(chunk.usage) or seen["usage"]
                for choice in chunk.choices:
                    seen["text"] += choice.text
                    seen["stop"] = choice.finish_reason or seen["stop"]
        return seen

    def embeddings(model, prompt):
        answer = client.embeddings.create(model=model, input=[prompt, f"{prompt} again"])
        vectors = [item.embedding for item in answer.data]
        told = usage(answer.usage.prompt_tokens, output=0)
        return {"vectors": vectors, "usage": told, "request_id": answer._request_id}

    def moderations(model, prompt):
        answer = client.moderations.create(model=model, input=[prompt, f"I will kill it. {prompt}"])
        flags = [[result.flagged, result.categories.violence] for result in answer.results]
        return {"flags": flags, "request_id": answer._request_id}

    def read_response(answer):
        told = answer.usage
        calls = [item for item in answer.output if item.type == "function_call"]
        return {
            "text": answer.output_text,
            "tools": [[call.name, json.loads(call.arguments), call.call_id] for call in calls],
            "stop": answer.status,
            "id": answer.id,
            "usage": told
            and usage(
                told.input_tokens,
                told.input_tokens_details.cached_tokens,
                told.output_tokens,
                told.output_tokens_details.reasoning_tokens,
            ),
        }

    def response(model, prompt, **fields):
        answer = client.responses.create(model=model, instructions=task.system, input=prompt, **fields)
        return read_response(answer) | {"request_id": answer._request_id}

    def response_stream(model, prompt, **fields):
        said, last = "", None
        with client.responses.create(
            model=model, instructions=task.system, input=prompt, stream=True, **fields
        ) as events:
            request_id = events.response.headers["x-request-id"]
            for event in events:
                if event.type == "response.output_text.delta":
                    said += event.delta
                last = event
        return read_response(last.response) | {"streamed": said, "request_id": request_id}

    def response_tool():
        return {"type": "function", **task.tool}

    def response_tools(model, prompt):
        return response(model, prompt, tools=[response_tool()])

    def response_tools_stream(model, prompt):
        return response_stream(model, prompt, tools=[response_tool()])

    def response_stored(model, prompt):
        first = response(model, prompt, store=True)
        again = read_response(client.responses.retrieve(first["id"]))
        client.responses.delete(first["id"])
        try:
            client.responses.retrieve(first["id"])
        except openai.NotFoundError:
            gone = True
        else:
            gone = False
        return first | {"again": again, "gone": gone}

    def models():
        listed = [model.id for model in client.models.list()]
        return {"ids": listed, "one": client.models.retrieve(listed[0]).id}

    asks = {
        "chat.plain": lambda **question: plain(**question, max_tokens=task.limit),
        "chat.stream": lambda **question: stream(**question, max_tokens=task.limit),
        "chat.tools": tools,
        "chat.tools_stream": tools_stream,
        "chat.tool_result": tool_result,
        "chat.image": image,
        "chat.structured": structured,
        "chat.reasoning": reasoning,
        "chat.unknown_model": plain,
        "chat.wrong_key": wrong_key,
        "chat.bad_field": bad_field,
        "chat.refused": plain,
        "completions.plain": completion,
        "completions.stream": completion_stream,
        "embeddings.plain": embeddings,
        "moderations.plain": moderations,
        "responses.plain": response,
        "responses.stream": response_stream,
        "responses.tools": response_tools,
        "responses.tools_stream": response_tools_stream,
        "responses.stored": response_stored,
        "models.list": models,
    }
    return asks, read_api_error


serve(make)
