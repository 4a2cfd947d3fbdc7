/**
 * A form is sent once: a second press of the same button, while what it asked for is under way, does nothing.
 *
 * Another button of the form asks for something else, and is heard. So is the same one where no answer came in time.
 */
const LONGEST = 10_000;
const underWay = new Map();

function begin(form, submitter) {
  end(form);
  underWay.set(form, submitter);
  submitter?.setAttribute("aria-disabled", "true");
}

function end(form) {
  underWay.get(form)?.removeAttribute("aria-disabled");
  underWay.delete(form);
}

/** The page is about to go; where it stays after all, its forms must work. */
function endLate(form) {
  setTimeout(() => end(form), LONGEST);
}

function isRepeated({ target, submitter }) {
  const first = underWay.get(target);
  return underWay.has(target) && (!first || !submitter || first === submitter);
}

// Before any other listener, htmx's own among them.
window.addEventListener(
  "submit",
  (event) => {
    if (!isRepeated(event)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  },
  { capture: true },
);

// After any other listener: what none of them has taken over, the browser sends itself.
window.addEventListener("submit", (event) => {
  const { target: form, submitter } = event;
  if (event.defaultPrevented || form.getAttribute("method")?.toLowerCase() !== "post") return;
  begin(form, submitter);
  endLate(form);
});
window.addEventListener("pageshow", ({ persisted }) => {
  if (persisted) for (const form of [...underWay.keys()]) end(form);
});

document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
  const { sourceElement: form, request } = ctx;
  if (form.tagName === "FORM" && request.method !== "GET") begin(form, request.submitter);
});
document.addEventListener("htmx:finally:request", ({ detail: { ctx } }) => {
  // A redirection is still loading its page.
  if (ctx.keepIndicators) endLate(ctx.sourceElement);
  else end(ctx.sourceElement);
});
