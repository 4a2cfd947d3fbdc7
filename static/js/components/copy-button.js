/** <copy-button value="…"> puts its value on the clipboard; without one, the text of the code that it stands beside. */
class CopyButton extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", () => this.copy());
  }

  get text() {
    const source = this.closest(".code, .command, .secret")?.querySelector("pre, output, code");
    return this.getAttribute("value") ?? source?.textContent ?? "";
  }

  async copy() {
    const button = this.querySelector("button");
    const status = this.querySelector("[role=status]");
    await write(this.text.trim(), button);
    button.dataset.copied = "";
    status.textContent = status.dataset.done;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      delete button.dataset.copied;
      status.textContent = "";
    }, 1600);
  }
}

/** Over plain http from another machine there is no `navigator.clipboard`; the old way still works there. */
async function write(text, button) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  button.parentElement.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  button.focus();
}

customElements.define("copy-button", CopyButton);
