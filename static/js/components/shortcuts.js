/**
 * The keyboard: `g` and a letter go to the page marked `data-go`, `/` to the filter, `c` to what is marked
 * `data-create`, `?` shows the list. Single keys work outside fields only, and the list can switch them off.
 */
const OFF = "comptoir-shortcuts-off";
let going = false;

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || inField(event.target)) return;
  if (document.querySelector("dialog[open], :popover-open") || localStorage.getItem(OFF)) return;
  const target = going ? document.querySelector(`[data-go="${CSS.escape(event.key)}"]`) : null;
  going = false;
  if (target) act(event, () => target.click());
  else if (event.key === "g") wait();
  else if (event.key === "/") act(event, () => document.querySelector("[data-filter]")?.focus());
  else if (event.key === "c") act(event, () => document.querySelector("[data-create]")?.click());
  else if (event.key === "?") act(event, show);
});

function inField(element) {
  return element.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]") !== null;
}

function act(event, action) {
  event.preventDefault();
  action();
}

function wait() {
  going = true;
  setTimeout(() => (going = false), 1500);
}

function show() {
  const template = document.getElementById("shortcuts");
  if (template) document.getElementById("dialogs").replaceChildren(template.content.cloneNode(true));
  const box = document.querySelector("[data-shortcuts-on]");
  if (box) box.checked = !localStorage.getItem(OFF);
}

for (const button of document.querySelectorAll("[data-shortcuts]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    button.closest("[popover]")?.hidePopover();
    show();
  });
}

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-shortcuts-on]")) return;
  if (event.target.checked) localStorage.removeItem(OFF);
  else localStorage.setItem(OFF, "1");
});
