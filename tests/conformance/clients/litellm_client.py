"""LiteLLM's client over both families."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch its price list

import litellm
from worker import serve, usage

litellm.suppress_debug_info = True
litellm.telemetry = False


def used(told):
    if told is None:
        return None
    details = getattr(told, "prompt_tokens_details", None)
    outputs = getattr(told, "completion_tokens_details", None)
    return usage(
        told.prompt_tokens,
        details and details.cached_tokens,
        told.completion_tokens,
        outputs and outputs.reasoning_tokens,
    )


def read_error(error):
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    return {
        "status": getattr(error, "status_code", None),
        "message": str(error),
        "request_id": headers.get("x-request-id") or headers.get("request-id"),
    }


def make(task):
    def talk(prompt):
        return [{"role": "system", "content": task.system}, {"role": "user", "content": prompt}]

    def asks_of(family, prefix, url):
        fixed = {"api_key": task.key, "api_base": url, "max_retries": 0, "num_retries": 0}
        if prefix == "anthropic":
            fixed["max_tokens"] = 1500

        def ask(model, messages, **fields):
            return litellm.completion(model=f"{prefix}/{model}", messages=messages, **fixed | fields)

        def read(answer):
            choice = answer.choices[0]
            calls = choice.message.tool_calls or []
            return {
                "text": choice.message.content,
                "tools": [[call.function.name, json.loads(call.function.arguments), call.id] for call in calls],
                "stop": choice.finish_reason,
                "usage": used(answer.usage),
            }

        def plain(model, prompt):
            return read(ask(model, talk(prompt), max_tokens=task.limit))

        def stream(model, prompt, **fields):
            options = {"include_usage": True}
            chunks = list(ask(model, talk(prompt), stream=True, stream_options=options, **fields))
            return read(litellm.stream_chunk_builder(chunks))

        def tools(model, prompt):
            return read(ask(model, talk(prompt), tools=[task.openai_tool]))

        def tools_stream(model, prompt):
            return stream(model, prompt, tools=[task.openai_tool])

        def tool_result(model, prompt):
            name, arguments, call_id = task.call
            function = {"name": name, "arguments": json.dumps(arguments)}
            call = {"id": call_id, "type": "function", "function": function}
            messages = [
                *talk(prompt),
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call_id, "content": task.result},
            ]
            return read(ask(model, messages, tools=[task.openai_tool]))

        def image(model, prompt):
            parts = [
                {"type": "text", "text": prompt},
                {"type": "image_url", "image_url": {"url": task.image_url}},
            ]
            return read(ask(model, [{"role": "user", "content": parts}]))

        def structured(model, prompt):
            wanted = {"type": "json_schema", "json_schema": {"name": "City", "schema": task.schema, "strict": True}}
            answer = read(ask(model, talk(prompt), response_format=wanted))
            return answer | {"data": json.loads(answer["text"])}

        def wrong_key(model, prompt):
            ask(model, talk(prompt), api_key="sk-wrong")

        return {
            f"{family}.plain": plain,
            f"{family}.stream": lambda **question: stream(**question, max_tokens=task.limit),
            f"{family}.tools": tools,
            f"{family}.tools_stream": tools_stream,
            f"{family}.tool_result": tool_result,
            f"{family}.image": image,
            f"{family}.structured": structured,
            f"{family}.unknown_model": plain,
            f"{family}.wrong_key": wrong_key,
            f"{family}.refused": plain,
        }

    fixed = {"api_key": task.key, "api_base": f"{task.url}/v1", "max_retries": 0}

    def completion(model, prompt):
        answer = litellm.text_completion(model=f"text-completion-openai/{model}", prompt=prompt, max_tokens=64, **fixed)
        choice = answer.choices[0]
        return {"text": choice.text, "stop": choice.finish_reason, "usage": used(answer.usage)}

    def embeddings(model, prompt):
        answer = litellm.embedding(model=f"openai/{model}", input=[prompt, f"{prompt} again"], **fixed)
        vectors = [item["embedding"] for item in answer.data]
        return {"vectors": vectors, "usage": usage(answer.usage.prompt_tokens, output=0)}

    def moderations(model, prompt):
        # It takes the address of this endpoint from the library's own variable.
        os.environ["OPENAI_BASE_URL"] = f"{task.url}/v1"
        answer = litellm.moderation(model=model, input=[prompt, f"I will kill it. {prompt}"], **fixed)
        flags = [[result.flagged, dict(result.categories)["violence"]] for result in answer.results]
        return {"flags": flags}

    def response(model, prompt):
        answer = litellm.responses(model=f"openai/{model}", instructions=task.system, input=prompt, **fixed)
        said = [part.text for item in answer.output if item.type == "message" for part in item.content]
        told = answer.usage
        cached = told.input_tokens_details and told.input_tokens_details.cached_tokens
        return {
            "text": "".join(said),
            "stop": answer.status,
            "usage": usage(told.input_tokens, cached, told.output_tokens),
        }

    asks = {
        **asks_of("chat", "openai", f"{task.url}/v1"),
        **asks_of("messages", "anthropic", task.url),
        "completions.plain": completion,
        "embeddings.plain": embeddings,
        "moderations.plain": moderations,
        "responses.plain": response,
    }
    return asks, read_error


serve(make)
