/**
 * <tab-set> makes tabs of what stands in it: buttons with `role="tab"` and, for each, the panel that its
 * `aria-controls` names. Arrow keys walk; the choice is kept under the name `data-remember` gives it.
 */
class TabSet extends HTMLElement {
  connectedCallback() {
    this.tabs = [...this.querySelectorAll("[role=tab]")];
    for (const tab of this.tabs) {
      tab.addEventListener("click", () => this.select(tab));
      tab.addEventListener("keydown", (event) => this.walk(event, tab));
    }
    const kept = this.dataset.remember && localStorage.getItem(this.dataset.remember);
    this.select(this.tabs.find((tab) => tab.dataset.tab === kept) ?? this.tabs[0], false);
  }

  select(chosen, keep = true) {
    for (const tab of this.tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      this.querySelector(`#${CSS.escape(tab.getAttribute("aria-controls"))}`).hidden = !on;
    }
    if (keep && this.dataset.remember) localStorage.setItem(this.dataset.remember, chosen.dataset.tab);
  }

  walk(event, tab) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = this.tabs.at((this.tabs.indexOf(tab) + step) % this.tabs.length);
    this.select(next);
    next.focus();
  }
}

customElements.define("tab-set", TabSet);
