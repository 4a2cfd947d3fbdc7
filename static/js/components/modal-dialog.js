/**
 * <modal-dialog> shows the <dialog> in it as a modal and goes away with it; a button marked `data-closes` closes it.
 *
 * With `data-keep`, Escape does not close it: what it shows is shown once.
 */
let opener = null;

class ModalDialog extends HTMLElement {
  connectedCallback() {
    const dialog = this.querySelector("dialog");
    const active = document.activeElement;
    if (!active?.closest("modal-dialog")) opener = invoker(active);
    dialog.addEventListener("close", () => this.remove());
    dialog.addEventListener("cancel", (event) => {
      if (this.hasAttribute("data-keep")) event.preventDefault();
    });
    dialog.addEventListener("keydown", (event) => {
      // Chrome lets a second Escape through, whatever `cancel` says.
      if (event.key === "Escape" && this.hasAttribute("data-keep")) event.preventDefault();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target.closest("[data-closes]")) dialog.close();
    });
    dialog.showModal();
    (dialog.querySelector("[aria-invalid]") ?? dialog.querySelector("[autofocus]"))?.focus();
  }

  disconnectedCallback() {
    if (!document.querySelector("modal-dialog") && opener?.isConnected) opener.focus();
  }
}

/** What to give the focus back to: a menu is closed by then, so the button that opened it. */
function invoker(element) {
  const menu = element?.closest("[popover]");
  return menu ? document.querySelector(`[popovertarget="${menu.id}"]`) : element;
}

customElements.define("modal-dialog", ModalDialog);
