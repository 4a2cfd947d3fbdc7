/* The reader's decimal sign: the server takes both. */
const POINT = (0.5).toLocaleString(document.documentElement.lang || "en").charAt(1);

/**
 * <playground-slider> ties a range to the number beside it. The number is what is sent; empty, it is not sent and the
 * range only shows the usual value.
 */
class PlaygroundSlider extends HTMLElement {
  connectedCallback() {
    this.range = this.querySelector("input[type=range]");
    this.number = this.querySelector("input:not([type=range])");
    if (!this.range) return;
    this.usual = this.range.getAttribute("value");
    this.range.hidden = false;
    this.follow();
    this.range.addEventListener("input", () => {
      this.number.value = this.range.value.replace(".", POINT);
      this.follow();
    });
    // A range has no name and its change is not the form's: the number's is.
    this.range.addEventListener("change", () => this.number.dispatchEvent(new Event("change", { bubbles: true })));
    this.number.addEventListener("input", () => this.follow());
  }

  follow() {
    const text = this.number.value.trim().replace(",", ".");
    this.classList.toggle("is-unset", text === "");
    this.range.value = text === "" || Number.isNaN(Number(text)) ? this.usual : text;
  }
}

customElements.define("playground-slider", PlaygroundSlider);
