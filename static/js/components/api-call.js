/** The key that calls on this page use, and the model that stands in their examples; both live in this tab alone. */
const caller = { key: "", model: "MODEL" };

/** <api-key> asks the server which models a key has, and puts the first one into the examples. */
class ApiKey extends HTMLElement {
  connectedCallback() {
    this.querySelector("input").addEventListener("change", (event) => this.use(event.target.value.trim()));
  }

  async use(key) {
    const hint = this.querySelector("[role=status]");
    caller.key = key;
    if (!key) {
      hint.textContent = hint.dataset.empty;
      return;
    }
    const answer = await fetch("/v1/models", { headers: { authorization: `Bearer ${key}` } }).catch(() => null);
    if (caller.key !== key) return;
    if (!answer?.ok) {
      hint.textContent = hint.dataset.wrong;
      return;
    }
    const models = (await answer.json()).data;
    const old = caller.model;
    caller.model = models[0]?.id ?? "MODEL";
    hint.textContent = models.length ? `${hint.dataset.known} ${caller.model}.` : hint.dataset.none;
    for (const call of document.querySelectorAll("api-call")) call.rename(old, caller.model);
  }
}

/** <api-call data-method data-path> sends the body that its form holds and shows what comes, as it comes. */
class ApiCall extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.form.elements.stream?.addEventListener("change", (event) => this.setStream(event.target.checked));
  }

  /** Put another model's name into the example and the command. */
  rename(old, model) {
    for (const text of [this.form.elements.body, this.querySelector("pre code")]) {
      if (!text) continue;
      const name = "value" in text ? "value" : "textContent";
      text[name] = text[name].replaceAll(JSON.stringify(old), JSON.stringify(model));
    }
    const path = this.form.elements.model;
    if (path && (!path.value || path.value === old)) path.value = model;
  }

  setStream(isOn) {
    const body = this.form.elements.body;
    try {
      const { stream, ...rest } = JSON.parse(body.value);
      body.value = JSON.stringify(isOn ? { ...rest, stream: true } : rest, null, 2);
    } catch {
      // What is no JSON is left to its writer; sending it says so.
    }
  }

  async send() {
    const { method, path, version, noJson, unreachable } = this.dataset;
    const body = this.form.elements.body?.value;
    try {
      if (body) JSON.parse(body);
    } catch {
      this.show(noJson, true);
      return;
    }
    const url = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(this.form.elements[name].value.trim()).replaceAll("%2F", "/"));
    const headers = { authorization: `Bearer ${caller.key}`, "accept-language": document.documentElement.lang, ...(body && { "content-type": "application/json" }), ...(version && { "anthropic-version": version }) };
    this.stop?.abort();
    const stop = (this.stop = new AbortController());
    const began = performance.now();
    this.show("…", false);
    try {
      const answer = await fetch(url, { method, headers, body: body || undefined, signal: stop.signal });
      const heading = () => `${answer.status} · ${Math.round(performance.now() - began)} ms · ${answer.headers.get("x-request-id") ?? answer.headers.get("request-id") ?? ""}`;
      this.show(heading(), !answer.ok);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const output = this.querySelector("output");
      for (let part = await reader.read(); !part.done; part = await reader.read()) output.append(part.value);
      if (answer.headers.get("content-type")?.startsWith("application/json")) output.textContent = pretty(output.textContent);
      this.show(heading(), !answer.ok, output.textContent);
    } catch (error) {
      if (error.name !== "AbortError") this.show(unreachable, true);
    }
  }

  show(status, isFailed, text = "") {
    const line = this.querySelector(".operation__status");
    line.textContent = status;
    line.toggleAttribute("data-failed", isFailed);
    const output = this.querySelector("output");
    output.textContent = text;
    output.closest(".code").hidden = false;
    this.querySelector(".operation__answer").hidden = false;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

customElements.define("api-key", ApiKey);
customElements.define("api-call", ApiCall);
