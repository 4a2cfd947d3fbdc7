/**
 * <live-part every="3" hx-trigger="live" …> asks for its news every so many seconds while someone can see it.
 *
 * A server that does not answer is asked less and less often, without a toast each time. Buttons `[data-live]` pause
 * and resume every live part of the page, and say when the figures are late.
 */
const SLOWEST = 60;

// Whether a <details> is open is the reader's to say, not the server's.
htmx.config.morphIgnore.push("open");

let paused = false;

class LivePart extends HTMLElement {
  connectedCallback() {
    this.failures = 0;
    this.next = Date.now() + this.wait;
    this.timer = setInterval(() => this.look(), 1000);
    this.listener ??= this.listen();
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  get wait() {
    return 1000 * Math.min(Number(this.getAttribute("every")) * 2 ** this.failures, SLOWEST);
  }

  look() {
    if (paused || document.hidden || !this.hasAttribute("every") || Date.now() < this.next) return;
    this.next = Date.now() + this.wait;
    this.dispatchEvent(new CustomEvent("live"));
  }

  listen() {
    this.addEventListener("htmx:before:response", (event) => {
      if (event.target !== this) return;
      // Signed out meanwhile: the whole page must ask again, not this part of it.
      if (event.detail.ctx.response.raw.redirected) {
        event.preventDefault();
        location.reload();
      }
      this.settle(event.detail.ctx.response.status < 400);
    });
    for (const failure of ["htmx:error", "htmx:response:error"]) {
      this.addEventListener(failure, (event) => {
        if (event.target !== this) return;
        event.stopPropagation();
        this.settle(false);
      });
    }
    return true;
  }

  settle(answered) {
    this.failures = answered ? 0 : this.failures + 1;
    this.next = Date.now() + this.wait;
    showState();
  }
}

function showState() {
  const late = [...document.querySelectorAll("live-part")].some((part) => part.failures > 1);
  for (const button of document.querySelectorAll("[data-live]")) {
    button.setAttribute("aria-pressed", !paused);
    button.classList.toggle("is-late", late && !paused);
  }
}

document.addEventListener("click", ({ target }) => {
  if (!target.closest("[data-live]")) return;
  paused = !paused;
  for (const part of document.querySelectorAll("live-part")) part.next = 0;
  showState();
});
document.addEventListener("visibilitychange", () => {
  for (const part of document.querySelectorAll("live-part")) part.look();
});

customElements.define("live-part", LivePart);
