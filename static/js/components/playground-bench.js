/**
 * <playground-bench>: sends what is written, shows the answer as it streams, stops it, and keeps the settings.
 *
 * The forms in it work without this: they post, and the page comes back with the answer. Marked `data-ask`, they are
 * posted here instead and answered with events: `turn` (what stands above the answer), `text` pieces, `end` (the
 * answer as the server keeps it, rendered).
 */
import "./playground-slider.js";

const language = document.documentElement.lang || "en";
const THIN = "\u202f";
const SAVE_AFTER_MS = 250;
const STOPPED_WITHIN = { tries: 20, everyMs: 250 };
const ANSWER_WITHIN = { tries: 240, everyMs: 500 };
const FIGURES_WITHIN = { tries: 8, everyMs: 1000 };

class PlaygroundBench extends HTMLElement {
  connectedCallback() {
    this.composer = this.querySelector("#composer");
    if (!this.composer) return;
    this.log = this.querySelector("[data-log]");
    this.scroller = this.log.parentElement;
    this.prompt = this.composer.elements.message;
    this.addEventListener("submit", (event) => this.submit(event));
    this.addEventListener("keydown", (event) => this.key(event));
    this.addEventListener("input", (event) => grow(event.target));
    this.addEventListener("change", (event) => this.changed(event));
    this.querySelector("[data-stop]").addEventListener("click", () => this.stop());
    this.onEscape = (event) => this.escape(event);
    this.onHash = () => this.markPane();
    // The page follows the answer only while the reader is at its end.
    this.follows = true;
    this.scroller.addEventListener("scroll", () => (this.follows = this.isAtEnd), { passive: true });
    this.sizes = new ResizeObserver(() => this.follow());
    this.sizes.observe(this.scroller);
    document.addEventListener("keydown", this.onEscape);
    addEventListener("hashchange", this.onHash);
    if (/Mac|iP(hone|ad)/.test(navigator.platform)) this.querySelector("[data-send-key]").textContent = "⌘ ↵";
    for (const area of this.querySelectorAll("textarea")) grow(area);
    for (const message of this.querySelectorAll("[data-waits]")) this.awaitFigures(message.dataset.waits);
    this.awaitAnswer(this.querySelector("[data-unanswered]"));
    this.markPane();
    if (!location.hash) this.toEnd();
    if (!this.querySelector("textarea[autofocus]") && matchMedia("(pointer: fine)").matches) this.prompt.focus();
  }

  disconnectedCallback() {
    this.abort?.abort();
    this.sizes?.disconnect();
    document.removeEventListener("keydown", this.onEscape);
    removeEventListener("hashchange", this.onHash);
  }

  // Asking ---------------------------------------------------------------------------------------------------------

  submit(event) {
    // "Get code" submits the same form to another address; htmx takes it.
    if (!event.target.matches("[data-ask]") || event.submitter?.hasAttribute("formaction")) return;
    event.preventDefault();
    if (!this.abort) this.ask(event.target);
  }

  async ask(form) {
    const body = new FormData(this.composer);
    if (form !== this.composer) {
      body.delete("message");
      for (const [name, value] of new FormData(form)) body.set(name, value);
    }
    this.abort = new AbortController();
    this.turn = null;
    this.ended = false;
    this.form = form;
    this.showErrors(form, []);
    this.writing(true);
    try {
      const response = await fetch(this.composer.action, {
        method: "POST",
        body,
        headers: { Accept: "text/event-stream" },
        signal: this.abort.signal,
      });
      if (isStream(response)) {
        for await (const { name, data } of events(response.body)) this[`on_${name}`]?.(data);
        if (!this.ended) await this.settle();
      } else {
        await this.refused(form, response);
      }
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error;
      await this.settle();
    } finally {
      this.abort = null;
      this.writing(false);
    }
  }

  on_turn(turn) {
    this.turn = turn;
    const kept = turn.kept && document.getElementById(turn.kept);
    const first = kept ? kept.nextElementSibling : this.log.querySelector("[data-message]");
    removeFrom(first);
    this.querySelector("[data-hint]")?.remove();
    for (const again of this.log.querySelectorAll(".message__tools [data-ask]")) again.remove();
    if (turn.question) this.append(turn.question);
    this.pending = this.querySelector("template[data-pending]").content.firstElementChild.cloneNode(true);
    const model = this.composer.elements.model;
    this.pending.querySelector("strong").textContent = model.selectedOptions[0]?.textContent ?? "";
    this.text = this.pending.querySelector(".prose__plain");
    this.log.append(this.pending);
    if (this.form === this.composer) {
      this.prompt.value = "";
      grow(this.prompt);
    }
    this.composer.elements.conversation.value = turn.conversation;
    const title = this.querySelector("[data-title]");
    title.textContent = title.title = turn.title;
    history.replaceState(history.state, "", turn.url);
    this.beginFigures();
    this.toEnd();
  }

  on_text(text) {
    this.chunks += 1;
    this.firstAt ??= performance.now();
    this.waiting = (this.waiting ?? "") + text;
    this.frame ??= requestAnimationFrame(() => this.flush());
  }

  flush() {
    this.frame = null;
    if (!this.waiting) return;
    this.text.append(this.waiting);
    this.waiting = "";
    this.follow();
  }

  on_end(fragments) {
    this.ended = true;
    this.flush();
    const before = this.pending;
    this.pending = null;
    this.show(fragments, before);
    this.follow();
    const message = this.log.lastElementChild;
    this.say([".message__head strong", ".message__body", ".callout", ".message__foot"]
      .map((part) => message.querySelector(part)?.textContent.trim() ?? "")
      .join(". "));
    if (fragments.waits) this.awaitFigures(message.dataset.waits);
  }

  /** The stream is over before its end came: by a stop, or because the connection broke. */
  async settle() {
    cancelAnimationFrame(this.frame);
    this.flush();
    const stopped = this.abort.signal.aborted;
    if (!this.turn) {
      if (!stopped) this.showErrors(this.form, [phrase("offline")]);
      return;
    }
    const fragments = await poll(this.turn.detail, STOPPED_WITHIN);
    if (fragments) return this.on_end(fragments);
    this.pending.querySelector(".badge").remove();
    this.pending.querySelector("[aria-busy]").removeAttribute("aria-busy");
    this.pending.append(this.querySelector("template[data-lost]").content.cloneNode(true));
    this.pending = null;
  }

  async refused(form, response) {
    if (response.status !== 422) {
      const words = { 401: "signedOut", 403: "forbidden", 404: "notFound", 429: "tooMany" }[response.status];
      const isSignIn = response.redirected;
      const number = response.headers.get("x-request-id") ?? response.status;
      return this.showErrors(form, [phrase(isSignIn ? "signedOut" : words) ?? `${phrase("failed")} ${number}`]);
    }
    const { errors, parameters } = await response.json();
    this.replacePane("#pane-parameters", parameters);
    this.showErrors(form, errors);
    const wrong = this.querySelector("#pane-parameters [aria-invalid=true]");
    (wrong?.offsetParent ? wrong : form.elements.message ?? this.prompt).focus();
  }

  stop() {
    this.abort?.abort();
  }

  // Keys -----------------------------------------------------------------------------------------------------------

  key(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    const { form } = event.target;
    if (!form) return;
    event.preventDefault();
    form.requestSubmit();
  }

  escape(event) {
    if (event.key !== "Escape" || document.querySelector("dialog[open], :popover-open")) return;
    if (this.abort) {
      event.preventDefault();
      this.stop();
    } else if (event.target.closest?.(".edit")) {
      event.target.closest(".edit").querySelector("[data-cancel]").click();
    }
  }

  // Settings -------------------------------------------------------------------------------------------------------

  changed({ target }) {
    if (target.form !== this.composer || !target.name || target === this.prompt) return;
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.save(target), target.name === "model" ? 0 : SAVE_AFTER_MS);
  }

  async save(target) {
    const sent = new FormData(this.composer);
    const response = await fetch(this.dataset.parameters, { method: "POST", body: sent });
    if (response.redirected || (!response.ok && response.status !== 422)) return;
    if (!this.stillSays(sent)) {
      // Something was set meanwhile: the answer is about what stood there before, and must not replace it.
      clearTimeout(this.saving);
      this.saving = setTimeout(() => this.save(target), SAVE_AFTER_MS);
      return;
    }
    const pane = this.querySelector("#pane-parameters");
    if (target.name !== "model" && response.ok && !pane.querySelector("[aria-invalid=true]")) return;
    this.replacePane("#pane-parameters", await response.text());
  }

  /** Whether the settings are those of `sent`; what is being written to the model is none of them. */
  stillSays(sent) {
    const text = (form) => JSON.stringify([...form].filter(([name]) => name !== this.prompt.name));
    return text(sent) === text(new FormData(this.composer));
  }

  replacePane(selector, html) {
    const { id } = document.activeElement;
    const open = this.querySelector(`${selector} details`)?.open;
    const pane = element(html);
    if (open && pane.querySelector("details")) pane.querySelector("details").open = true;
    // The pane itself stays: on a phone it is shown as the target of the address.
    this.querySelector(selector).replaceChildren(...pane.childNodes);
    if (id) document.getElementById(id)?.focus();
  }

  // Showing --------------------------------------------------------------------------------------------------------

  append(html) {
    const message = element(html);
    this.log.append(message);
    htmx.process(message);
  }

  show({ message, run, replaced }, before) {
    const fresh = element(message);
    before.replaceWith(fresh);
    htmx.process(fresh);
    this.replacePane("#pane-facts", run);
    this.querySelector("[data-replaced]").replaceWith(element(replaced));
  }

  writing(on) {
    const hadFocus = this.contains(document.activeElement) || document.activeElement === document.body;
    for (const part of this.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== (on ? "writing" : "idle");
    if (on) return;
    clearInterval(this.clock);
    const focusIsLost = document.activeElement === document.body || document.activeElement.hidden;
    if (hadFocus && focusIsLost && matchMedia("(pointer: fine)").matches) this.prompt.focus();
  }

  showErrors(form, errors) {
    const place = form.querySelector("[data-errors]") ?? this.composer.querySelector("[data-errors]");
    const template = this.querySelector("template[data-error]").content.firstElementChild;
    place.replaceChildren(
      ...errors.map((text) => {
        const error = template.cloneNode(true);
        error.querySelector("span").textContent = text;
        return error;
      }),
    );
  }

  say(text) {
    this.querySelector("[data-status]").textContent = text;
  }

  get isAtEnd() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < 48;
  }

  follow() {
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  toEnd() {
    this.follows = true;
    this.follow();
  }

  markPane() {
    const here = ["#pane-parameters", "#pane-facts"].includes(location.hash) ? location.hash : "#talk";
    for (const link of this.querySelectorAll(".bench__tabs a")) {
      if (link.hash === here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  /** The page was left while a model wrote: what was written is saved a moment later, and shown as it is. */
  async awaitAnswer(place) {
    if (!place) return;
    const coming = place.querySelector("[data-coming]");
    coming.hidden = false;
    const fragments = await poll(place.dataset.unanswered, ANSWER_WITHIN, () => true, () => place.isConnected);
    if (!place.isConnected || this.abort) return;
    coming.hidden = true;
    if (!fragments) return;
    place.previousElementSibling?.querySelector(".message__tools [data-ask]")?.remove();
    this.show(fragments, place);
    this.follow();
    if (fragments.waits) this.awaitFigures(this.log.lastElementChild.dataset.waits);
  }

  // Figures --------------------------------------------------------------------------------------------------------

  beginFigures() {
    this.chunks = 0;
    this.startedAt = performance.now();
    this.firstAt = undefined;
    const facts = this.querySelector("#pane-facts");
    facts.replaceChildren(this.querySelector("template[data-live]").content.cloneNode(true));
    this.live = Object.fromEntries(
      ["time", "first", "tokens", "speed"].map((name) => [name, facts.querySelector(`[data-${name}]`)]),
    );
    this.clock = setInterval(() => this.tick(), 100);
  }

  tick() {
    const now = performance.now();
    this.live.time.textContent = duration(now - this.startedAt);
    if (this.firstAt === undefined) return;
    const seconds = (now - this.firstAt) / 1000;
    this.live.first.textContent = duration(this.firstAt - this.startedAt);
    this.live.tokens.textContent = `≈${THIN}${number(this.chunks)}`;
    if (this.chunks > 1 && seconds > 0.2) this.live.speed.textContent = `≈${THIN}${number((this.chunks - 1) / seconds, 1)}`;
    const foot = this.pending?.querySelector(".message__foot");
    if (!foot) return;
    foot.hidden = false;
    const words = foot.firstElementChild;
    words.textContent = words.dataset.chunks.replace("{number}", number(this.chunks));
  }

  /** A stopped answer's figures come with the request's row, about a second later. */
  async awaitFigures(url) {
    if (!url) return;
    const fragments = await poll(url, FIGURES_WITHIN, (found) => !found.waits);
    const message = fragments && element(fragments.message);
    const stale = message && document.getElementById(message.id);
    if (stale && stale === this.log.lastElementChild && !this.abort) this.show(fragments, stale);
    else if (stale) stale.replaceWith(message);
  }
}

/** Ask `url` until it has an answer that is `enough`, or it is not `wanted`; the last one it gave, or null. */
async function poll(url, { tries, everyMs }, enough = () => true, wanted = () => true) {
  let found = null;
  for (let attempt = 0; attempt < tries && wanted(); attempt += 1) {
    await new Promise((resolve) => setTimeout(resolve, everyMs));
    try {
      const response = await fetch(url);
      if (response.status === 200 && !response.redirected) found = await response.json();
      else if (response.status !== 204) return found;
    } catch {
      // The server may be on its way back.
    }
    if (found && enough(found)) return found;
  }
  return found;
}

/** The events of a stream, their data parsed. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      if (fields.event) yield { name: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

function isStream(response) {
  return response.ok && response.headers.get("content-type")?.startsWith("text/event-stream");
}

function element(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  return document.importNode(template.content.firstElementChild, true);
}

function removeFrom(first) {
  for (let part = first; part; ) {
    const next = part.nextElementSibling;
    part.remove();
    part = next;
  }
}

/** Browsers that cannot size a field by its content are helped. */
function grow(area) {
  if (area.tagName !== "TEXTAREA" || CSS.supports("field-sizing", "content")) return;
  area.style.blockSize = "auto";
  area.style.blockSize = `${area.scrollHeight + 2}px`;
}

function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

function duration(milliseconds) {
  return milliseconds < 1000 ? `${number(milliseconds)}${THIN}ms` : `${number(milliseconds / 1000, 2)}${THIN}s`;
}

function phrase(name) {
  return name && document.getElementById("phrases").dataset[name];
}

customElements.define("playground-bench", PlaygroundBench);
