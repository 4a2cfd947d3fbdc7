/** <check-list>: a filter over a list of checkboxes, one that ticks all that are shown, and how many are ticked. */
class CheckList extends HTMLElement {
  connectedCallback() {
    this.querySelector("[data-tools]").hidden = false;
    this.filter.addEventListener("input", () => this.show());
    this.filter.addEventListener("keydown", (event) => {
      // Enter would submit the form that the list is part of.
      if (event.key === "Enter") event.preventDefault();
    });
    this.all.addEventListener("change", () => {
      for (const box of this.shown) box.checked = this.all.checked;
      this.count();
    });
    this.addEventListener("change", () => this.count());
    this.count();
  }

  get filter() {
    return this.querySelector("[data-filter]");
  }

  get all() {
    return this.querySelector("[data-all]");
  }

  get shown() {
    return [...this.querySelectorAll("li:not([hidden]) input:not(:disabled)")];
  }

  show() {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const row of this.querySelectorAll("li")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    this.querySelector("[data-nothing]").hidden = this.querySelector("li:not([hidden])") !== null;
    this.count();
  }

  count() {
    const ticked = this.querySelectorAll("li input:checked:not(:disabled)").length;
    const { shown, all } = this;
    all.checked = shown.length > 0 && shown.every((box) => box.checked);
    all.indeterminate = !all.checked && shown.some((box) => box.checked);
    all.disabled = shown.length === 0;
    const words = this.querySelector("[data-count]");
    words.textContent = ticked ? words.dataset.some.replace("NUMBER", ticked) : words.dataset.none;
  }
}

customElements.define("check-list", CheckList);
