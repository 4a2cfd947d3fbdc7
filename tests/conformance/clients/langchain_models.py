"""LangChain's chat models and embeddings over both families."""

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from worker import read_api_error, serve, usage


def make(task):
    def talk(prompt):
        return [SystemMessage(task.system), HumanMessage(prompt)]

    def read(message):
        told = message.usage_metadata
        metadata = message.response_metadata
        headers = metadata.get("headers") or {}
        return {
            "text": message.text if isinstance(message.text, str) else message.text(),
            "tools": [[call["name"], call["args"], call["id"]] for call in message.tool_calls],
            "stop": metadata.get("finish_reason") or metadata.get("stop_reason") or metadata.get("status"),
            "usage": told
            and usage(
                told["input_tokens"],
                (told.get("input_token_details") or {}).get("cache_read"),
                told["output_tokens"],
                (told.get("output_token_details") or {}).get("reasoning"),
            ),
            "request_id": headers.get("x-request-id"),
        }

    def whole(chunks):
        total = None
        for chunk in chunks:
            total = chunk if total is None else total + chunk
        return read(total)

    def asks_of(family, chat):
        def plain(model, prompt):
            return read(chat(model, max_tokens=task.limit).invoke(talk(prompt)))

        def stream(model, prompt):
            return whole(chat(model, max_tokens=task.limit).stream(talk(prompt)))

        def tools(model, prompt):
            return read(chat(model).bind_tools([task.openai_tool]).invoke(talk(prompt)))

        def tools_stream(model, prompt):
            return whole(chat(model).bind_tools([task.openai_tool]).stream(talk(prompt)))

        def tool_result(model, prompt):
            name, arguments, call_id = task.call
            call = {"name": name, "args": arguments, "id": call_id}
            answer = ToolMessage(task.result, tool_call_id=call_id)
            messages = [*talk(prompt), AIMessage("", tool_calls=[call]), answer]
            return read(chat(model).bind_tools([task.openai_tool]).invoke(messages))

        def image(model, prompt):
            parts = [
                {"type": "text", "text": prompt},
                {"type": "image", "base64": task.image, "mime_type": "image/png"},
            ]
            return read(chat(model).invoke([HumanMessage(parts)]))

        def structured(model, prompt):
            schema = task.schema | {"title": "City", "description": "A city."}
            asked = chat(model).with_structured_output(schema, method="json_schema", include_raw=True)
            answer = asked.invoke(talk(prompt))
            return read(answer["raw"]) | {"data": answer["parsed"]}

        def wrong_key(model, prompt):
            chat(model, api_key="sk-wrong").invoke(talk(prompt))

        return {
            f"{family}.plain": plain,
            f"{family}.stream": stream,
            f"{family}.tools": tools,
            f"{family}.tools_stream": tools_stream,
            f"{family}.tool_result": tool_result,
            f"{family}.image": image,
            f"{family}.structured": structured,
            f"{family}.unknown_model": plain,
            f"{family}.wrong_key": wrong_key,
            f"{family}.refused": plain,
        }

    def openai_chat(model, **fields):
        fields = {"api_key": task.key, "max_retries": 0, "stream_usage": True} | fields
        return ChatOpenAI(model=model, base_url=f"{task.url}/v1", include_response_headers=True, **fields)

    def anthropic_chat(model, **fields):
        fields = {"api_key": task.key, "max_retries": 0, "max_tokens": 1500} | fields
        return ChatAnthropic(model=model, base_url=task.url, **fields)

    def response(model, prompt):
        return read(openai_chat(model, use_responses_api=True).invoke(talk(prompt)))

    def response_stream(model, prompt):
        return whole(openai_chat(model, use_responses_api=True).stream(talk(prompt)))

    def embeddings(model, prompt):
        # Texts, not tokens: the tokenizer that it would count with has to be fetched first.
        asked = OpenAIEmbeddings(
            model=model, base_url=f"{task.url}/v1", api_key=task.key, check_embedding_ctx_length=False, max_retries=0
        )
        return {"vectors": asked.embed_documents([prompt, f"{prompt} again"])}

    asks = {
        **asks_of("chat", openai_chat),
        **asks_of("messages", anthropic_chat),
        "responses.plain": response,
        "responses.stream": response_stream,
        "embeddings.plain": embeddings,
    }
    return asks, read_api_error


serve(make)
