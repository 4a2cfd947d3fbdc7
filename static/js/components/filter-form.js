/** <filter-form> around a form: its fields filter at once, and empty ones stay out of the address. */
class FilterForm extends HTMLElement {
  connectedCallback() {
    const form = this.querySelector("form");
    form.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
      // Links in the form, such as segments, ask for themselves.
      if (ctx.sourceElement !== form) return;
      for (const [name, value] of [...ctx.request.body]) if (!value) ctx.request.body.delete(name);
      // Whatever stood in the form's own address is now in its fields.
      ctx.request.action = ctx.request.action.split("?")[0];
    });
  }
}

customElements.define("filter-form", FilterForm);
