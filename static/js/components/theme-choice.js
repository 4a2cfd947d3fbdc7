/** <theme-choice> puts a theme on at once; its form tells the server, which puts it on every page from now on. */
class ThemeChoice extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", ({ target }) => {
      const chosen = target.closest("button");
      if (!chosen) return;
      if (chosen.value === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = chosen.value;
      for (const button of this.querySelectorAll("button")) button.setAttribute("aria-pressed", button === chosen);
    });
  }
}

customElements.define("theme-choice", ThemeChoice);
