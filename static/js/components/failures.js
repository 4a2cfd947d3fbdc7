/** Says in a toast what a request of htmx could not do; the page stays as it was. A form's 422 shows its own errors. */
const phrases = document.getElementById("phrases").dataset;
const BY_STATUS = { 401: phrases.signedOut, 403: phrases.forbidden, 404: phrases.notFound, 429: phrases.tooMany };

function show(text) {
  const toasts = document.getElementById("toasts");
  if ([...toasts.children].some((toast) => toast.textContent.trim() === text)) return;
  const toast = document.getElementById("toast-failure").content.firstElementChild.cloneNode(true);
  toast.querySelector("span").textContent = text;
  toasts.append(toast);
}

document.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
  const { status, headers } = ctx.response;
  if (status === 422) return;
  show(BY_STATUS[status] ?? `${phrases.failed} ${headers.get("x-request-id") ?? status}`);
});

document.addEventListener("htmx:error", ({ detail: { ctx, error } }) => {
  // An answer that did arrive and could not be shown is a fault of ours, and the console has it.
  if (ctx?.response) return console.error(error);
  show(ctx?.request.signal.reason === "timeout" ? phrases.timeout : phrases.offline);
});
