/** Says in a toast what a request of htmx could not do; the page stays as it was. A form's 422 shows its own errors. */
const phrases = document.getElementById("phrases").dataset;
const BY_STATUS = { 401: phrases.signedOut, 403: phrases.forbidden, 404: phrases.notFound, 429: phrases.tooMany };

/** What stands outside an open dialog can be neither heard nor reached: there the toast stands in the dialog. */
function place() {
  const dialog = document.querySelector("modal-dialog dialog[open]");
  if (!dialog) return document.getElementById("toasts");
  const toasts = dialog.querySelector(".toasts") ?? document.createElement("div");
  toasts.className = "toasts";
  toasts.setAttribute("role", "status");
  dialog.append(toasts);
  return toasts;
}

function show(text) {
  const toasts = place();
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
