// The official libraries of OpenAI and Anthropic for Node, with the same lines in and out as worker.py.
const readline = require("node:readline");
const OpenAI = require("openai").default;
const Anthropic = require("@anthropic-ai/sdk").default;

const MAX_TOKENS = 1500;

const usage = (input, cacheRead, output, reasoning) => ({
  input, cache_read: cacheRead ?? null, output: output ?? null, reasoning: reasoning ?? null,
});

const readError = (error) => ({
  classes: [error.constructor.name],
  status: error.status,
  message: error.message,
  kind: error.type ?? error.error?.error?.type,
  code: error.code ?? null,
  request_id: error.requestID,
});

function openaiAsks(task) {
  const client = new OpenAI({ baseURL: `${task.url}/v1`, apiKey: task.key, maxRetries: 0 });
  const tool = { type: "function", function: task.tool };
  const talk = (prompt) => [{ role: "system", content: task.system }, { role: "user", content: prompt }];
  const used = (told) => told && usage(
    told.prompt_tokens, told.prompt_tokens_details?.cached_tokens, told.completion_tokens,
    told.completion_tokens_details?.reasoning_tokens,
  );
  const read = (answer) => {
    const { message, finish_reason: stop } = answer.choices[0];
    const tools = (message.tool_calls ?? []).map((call) => [
      call.function.name, JSON.parse(call.function.arguments), call.id,
    ]);
    return {
      text: message.content, tools, stop, reasoning: message.reasoning_content, usage: used(answer.usage),
      request_id: answer._request_id, model: answer.model,
    };
  };
  const ask = async (model, messages, fields = {}) =>
    read(await client.chat.completions.create({ model, messages, ...fields }));
  const plain = ({ model, prompt }, fields) => ask(model, talk(prompt), fields);
  const stream = async ({ model, prompt }, fields = {}) => {
    const options = { stream: true, stream_options: { include_usage: true } };
    const request = client.chat.completions.create({ model, messages: talk(prompt), ...options, ...fields });
    const { data: chunks, request_id: requestId } = await request.withResponse();
    const seen = { text: "", reasoning: "", stop: null, usage: null, request_id: requestId };
    const calls = [];
    for await (const chunk of chunks) {
      seen.model ??= chunk.model || undefined;
      seen.usage = used(chunk.usage) ?? seen.usage;
      for (const choice of chunk.choices) {
        seen.text += choice.delta.content ?? "";
        seen.reasoning += choice.delta.reasoning_content ?? "";
        seen.stop = choice.finish_reason ?? seen.stop;
        for (const call of choice.delta.tool_calls ?? []) {
          const known = (calls[call.index] ??= { name: "", text: "", id: "" });
          known.name += call.function.name ?? "";
          known.text += call.function.arguments ?? "";
          known.id += call.id ?? "";
        }
      }
    }
    return { ...seen, tools: calls.map((call) => [call.name, JSON.parse(call.text), call.id]) };
  };
  const readResponse = (answer) => ({
    text: answer.output_text,
    tools: answer.output.filter((item) => item.type === "function_call")
      .map((call) => [call.name, JSON.parse(call.arguments), call.call_id]),
    stop: answer.status,
    id: answer.id,
    usage: answer.usage && usage(
      answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens, answer.usage.output_tokens,
      answer.usage.output_tokens_details.reasoning_tokens,
    ),
  });
  const response = async ({ model, prompt }, fields = {}) => {
    const answer = await client.responses.create({ model, instructions: task.system, input: prompt, ...fields });
    return { ...readResponse(answer), request_id: answer._request_id };
  };
  const responseStream = async ({ model, prompt }, fields = {}) => {
    const stream = client.responses.stream({ model, instructions: task.system, input: prompt, ...fields });
    let streamed = "";
    stream.on("response.output_text.delta", (event) => { streamed += event.delta; });
    return { ...readResponse(await stream.finalResponse()), streamed };
  };
  const responseTool = { type: "function", strict: false, ...task.tool };
  const [name, args, id] = task.call;
  return {
    "chat.plain": (question) => plain(question, { max_completion_tokens: task.limit }),
    "chat.stream": (question) => stream(question, { max_completion_tokens: task.limit }),
    "chat.tools": (question) => plain(question, { tools: [tool] }),
    "chat.tools_stream": (question) => stream(question, { tools: [tool] }),
    "chat.tool_result": ({ model, prompt }) => ask(model, [
      ...talk(prompt),
      {
        role: "assistant", content: null,
        tool_calls: [{ id, type: "function", function: { name, arguments: JSON.stringify(args) } }],
      },
      { role: "tool", tool_call_id: id, content: task.result },
    ], { tools: [tool] }),
    "chat.image": ({ model, prompt }) => ask(model, [{
      role: "user",
      content: [
        { type: "text", text: prompt },
        { type: "image_url", image_url: { url: `data:image/png;base64,${task.image}` } },
      ],
    }]),
    "chat.structured": async (question) => {
      const format = { type: "json_schema", json_schema: { name: "City", schema: task.schema, strict: true } };
      const answer = await plain(question, { response_format: format });
      return { ...answer, data: JSON.parse(answer.text) };
    },
    "chat.reasoning": (question) => plain(question, { reasoning_effort: "low" }),
    "chat.unknown_model": plain,
    "chat.wrong_key": ({ model, prompt }) =>
      client.withOptions({ apiKey: "sk-wrong" }).chat.completions.create({ model, messages: talk(prompt) }),
    "chat.bad_field": ({ model }) => ask(model, "no list"),
    "chat.refused": plain,
    "completions.plain": async ({ model, prompt }) => {
      const answer = await client.completions.create({ model, prompt, max_tokens: 64 });
      const [choice] = answer.choices;
      return {
        text: choice.text, stop: choice.finish_reason, usage: used(answer.usage), request_id: answer._request_id,
      };
    },
    "completions.stream": async ({ model, prompt }) => {
      const seen = { text: "", stop: null, usage: null };
      const options = { stream: true, stream_options: { include_usage: true } };
      for await (const chunk of await client.completions.create({ model, prompt, max_tokens: 64, ...options })) {
        seen.usage = used(chunk.usage) ?? seen.usage;
        for (const choice of chunk.choices) {
          seen.text += choice.text;
          seen.stop = choice.finish_reason ?? seen.stop;
        }
      }
      return seen;
    },
    "embeddings.plain": async ({ model, prompt }) => {
      const answer = await client.embeddings.create({ model, input: [prompt, `${prompt} again`] });
      return {
        vectors: answer.data.map((item) => [...item.embedding]),
        usage: usage(answer.usage.prompt_tokens, null, 0),
        request_id: answer._request_id,
      };
    },
    "moderations.plain": async ({ model, prompt }) => {
      const answer = await client.moderations.create({ model, input: [prompt, `I will kill it. ${prompt}`] });
      return {
        flags: answer.results.map((result) => [result.flagged, result.categories.violence]),
        request_id: answer._request_id,
      };
    },
    "responses.plain": response,
    "responses.stream": responseStream,
    "responses.tools": (question) => response(question, { tools: [responseTool] }),
    "responses.tools_stream": (question) => responseStream(question, { tools: [responseTool] }),
    "responses.stored": async (question) => {
      const first = await response(question, { store: true });
      const again = readResponse(await client.responses.retrieve(first.id));
      await client.responses.delete(first.id);
      const gone = await client.responses.retrieve(first.id).then(() => false, (error) => error.status === 404);
      return { ...first, again, gone };
    },
    "models.list": async () => {
      const ids = [];
      for await (const model of client.models.list()) ids.push(model.id);
      return { ids, one: (await client.models.retrieve(ids[0])).id };
    },
  };
}

function anthropicAsks(task) {
  const client = new Anthropic({ baseURL: task.url, apiKey: task.key, maxRetries: 0 });
  const { parameters, ...described } = task.tool;
  const tool = { ...described, input_schema: parameters };
  const talk = (prompt) => [{ role: "user", content: prompt }];
  const used = (told) => {
    const cached = told.cache_read_input_tokens ?? 0;
    const input = told.input_tokens + cached + (told.cache_creation_input_tokens ?? 0);
    return usage(input, cached, told.output_tokens, told.output_tokens_details?.thinking_tokens);
  };
  const join = (blocks, type, field) => blocks.filter((each) => each.type === type).map((each) => each[field]).join("");
  const read = (answer, requestId) => ({
    text: join(answer.content, "text", "text"),
    tools: answer.content.filter((each) => each.type === "tool_use").map((each) => [each.name, each.input, each.id]),
    reasoning: join(answer.content, "thinking", "thinking"),
    stop: answer.stop_reason,
    usage: used(answer.usage),
    request_id: requestId ?? answer._request_id,
    model: answer.model,
  });
  const fieldsOf = ({ model, prompt }, fields) => ({
    model, messages: talk(prompt), system: task.system, max_tokens: MAX_TOKENS, ...fields,
  });
  const plain = async (question, fields) => read(await client.messages.create(fieldsOf(question, fields)));
  const stream = async (question, fields) => {
    const events = client.messages.stream(fieldsOf(question, fields));
    let streamed = "";
    events.on("text", (text) => { streamed += text; });
    const final = await events.finalMessage();
    return { ...read(final, events.request_id), streamed };
  };
  const [name, input, id] = task.call;
  return {
    "messages.plain": (question) => plain(question, { max_tokens: task.limit }),
    "messages.stream": (question) => stream(question, { max_tokens: task.limit }),
    "messages.tools": (question) => plain(question, { tools: [tool] }),
    "messages.tools_stream": (question) => stream(question, { tools: [tool] }),
    "messages.tool_result": (question) => plain(question, {
      tools: [tool],
      messages: [
        ...talk(question.prompt),
        { role: "assistant", content: [{ type: "tool_use", id, name, input }] },
        { role: "user", content: [{ type: "tool_result", tool_use_id: id, content: task.result }] },
      ],
    }),
    "messages.image": (question) => plain(question, {
      messages: [{
        role: "user",
        content: [
          { type: "image", source: { type: "base64", media_type: "image/png", data: task.image } },
          { type: "text", text: question.prompt },
        ],
      }],
    }),
    "messages.structured": async (question) => {
      const format = { type: "json_schema", schema: task.schema };
      const answer = await plain(question, { output_config: { format } });
      return { ...answer, data: JSON.parse(answer.text) };
    },
    "messages.reasoning": (question) => plain(question, { thinking: { type: "enabled", budget_tokens: 1024 } }),
    "messages.unknown_model": plain,
    "messages.wrong_key": (question) =>
      client.withOptions({ apiKey: "sk-wrong" }).messages.create(fieldsOf(question, {})),
    "messages.bad_field": (question) => plain(question, { messages: "no list" }),
    "messages.refused": plain,
    "count_tokens.plain": async ({ model, prompt }) => {
      const answer = await client.messages.countTokens({ model, system: task.system, messages: talk(prompt) });
      return { count: answer.input_tokens };
    },
    "models.list": async () => {
      const ids = [];
      for await (const model of client.models.list()) ids.push(model.id);
      return { ids, one: (await client.models.retrieve(ids[0])).id };
    },
  };
}

async function serve() {
  let asks = null;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const given = JSON.parse(line);
    if (asks === null) {
      asks = process.argv[2] === "openai" ? openaiAsks(given) : anthropicAsks(given);
      console.log(JSON.stringify({ ready: Object.keys(asks).sort() }));
      continue;
    }
    let answer;
    try {
      answer = await asks[given.ask](given.with);
    } catch (error) {
      answer = { error: readError(error), trace: error.stack };
    }
    console.log(JSON.stringify(answer));
  }
}

serve();
