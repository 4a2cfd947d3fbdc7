/** <menu-list popover>: arrow keys walk through its items; a field marked `data-menu-filter` narrows them. */
class MenuList extends HTMLElement {
  connectedCallback() {
    this.addEventListener("toggle", (event) => event.newState === "open" && this.begin());
    this.addEventListener("keydown", (event) => this.walk(event));
    this.filter?.addEventListener("input", () => this.narrow());
  }

  get filter() {
    return this.querySelector("[data-menu-filter]");
  }

  get items() {
    return [...this.querySelectorAll(".menu__item")].filter((item) => !item.hidden);
  }

  begin() {
    if (this.filter) {
      this.filter.value = "";
      this.narrow();
    }
    (this.filter ?? this.querySelector("[aria-current]") ?? this.items[0])?.focus();
  }

  narrow() {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const item of this.querySelectorAll(".menu__scroll .menu__item")) {
      item.hidden = !item.textContent.toLowerCase().includes(wanted);
    }
  }

  walk(event) {
    const { items } = this;
    const here = items.indexOf(document.activeElement);
    const aims = { ArrowDown: here + 1, ArrowUp: here < 0 ? -1 : here - 1, Home: 0, End: -1 };
    if (event.key === "Enter" && event.target === this.filter) {
      items[0]?.click();
    } else if (event.key in aims && !(event.target === this.filter && ["Home", "End"].includes(event.key))) {
      event.preventDefault();
      items.at(aims[event.key] % items.length)?.focus();
    }
  }
}

customElements.define("menu-list", MenuList);
