/**
 * <modal-dialog> shows the <dialog> in it as a modal and goes away with it; a button marked `data-closes` closes it.
 *
 * With `data-keep`, Escape and a click beside it do not close it: what it shows is shown once.
 */
class ModalDialog extends HTMLElement {
  connectedCallback() {
    const dialog = this.querySelector("dialog");
    this.opener ??= document.activeElement;
    dialog.addEventListener("close", () => {
      this.remove();
      if (this.opener?.isConnected) this.opener.focus();
    });
    dialog.addEventListener("cancel", (event) => {
      if (this.hasAttribute("data-keep")) event.preventDefault();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target.closest("[data-closes]")) {
        event.preventDefault();
        dialog.close();
      }
    });
    dialog.showModal();
    dialog.querySelector("[aria-invalid], [autofocus]")?.focus();
  }
}

customElements.define("modal-dialog", ModalDialog);
