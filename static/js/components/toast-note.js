/** <toast-note> leaves after six seconds, or stays until it is closed where it says `data-stays`. */
class ToastNote extends HTMLElement {
  connectedCallback() {
    if (!this.hasAttribute("data-stays")) {
      this.timer = setTimeout(() => this.remove(), 6000);
      this.addEventListener("pointerenter", () => clearTimeout(this.timer));
      this.addEventListener("pointerleave", () => (this.timer = setTimeout(() => this.remove(), 3000)));
    }
    if (this.querySelector("[data-closes]")) return;
    const close = document.getElementById("toast-close").content.firstElementChild.cloneNode(true);
    close.addEventListener("click", () => this.remove());
    this.append(close);
  }

  disconnectedCallback() {
    clearTimeout(this.timer);
  }
}

customElements.define("toast-note", ToastNote);
