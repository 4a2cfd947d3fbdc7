/**
 * <usage-chart for="ID" measure="cost" currency="EUR"> draws the table with that id as stacked bars.
 *
 * Columns with data-series are the series, rows the bars; the table's own words stand in the tip. It draws again
 * whenever the table or the theme changes.
 */
const probe = document.body.appendChild(document.createElement("i"));
probe.hidden = true;
const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });

/** A colour token as `rgb(…)`, in the theme that is on now. Chart.js reads neither light-dark() nor oklch(). */
function colour(token, alpha = 1) {
  probe.style.color = `var(--color-${token})`;
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = getComputedStyle(probe).color;
  pen.fillRect(0, 0, 1, 1);
  return `rgb(${[...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).join(" ")} / ${alpha})`;
}

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The bar under the pointer stands on a faint ground of its own width. */
const ground = {
  id: "ground",
  beforeDatasetsDraw(chart) {
    const index = chart.options.shownIndex;
    if (index == null) return;
    const { ctx, chartArea, scales } = chart;
    const width = chartArea.width / chart.data.labels.length;
    ctx.save();
    ctx.fillStyle = colour("ink", 0.05);
    ctx.beginPath();
    ctx.roundRect(scales.x.getPixelForValue(index) - width / 2, chartArea.top, width, chartArea.height, 4);
    ctx.fill();
    ctx.restore();
  },
};

class UsageChart extends HTMLElement {
  connectedCallback() {
    this.plot = this.firstElementChild;
    this.tip = document.createElement("div");
    this.tip.className = "tip chart-live__tip";
    this.tip.hidden = true;
    this.plot.replaceChildren(document.createElement("canvas"), this.tip);
    this.plot.addEventListener("keydown", (event) => this.move(event));
    this.plot.addEventListener("blur", () => this.show(null));
    this.plot.addEventListener("pointerleave", () => this.show(null));
    this.watcher = new MutationObserver(() => this.draw());
    const table = document.getElementById(this.getAttribute("for"));
    this.watcher.observe(table, { subtree: true, childList: true, characterData: true, attributes: true });
    this.watcher.observe(this, { attributes: true });
    this.watcher.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.recolour = () => this.draw();
    this.scheme.addEventListener("change", this.recolour);
    document.fonts.ready.then(() => this.draw());
    this.draw();
  }

  disconnectedCallback() {
    this.watcher.disconnect();
    this.scheme.removeEventListener("change", this.recolour);
    this.chart?.destroy();
    this.chart = null;
  }

  /** The table as series and bars. */
  read() {
    const table = document.getElementById(this.getAttribute("for"));
    if (!table) return null;
    const heads = [...table.tHead.rows[0].cells].slice(1, -1);
    const bars = [...table.tBodies[0].rows].map((row) => ({
      title: row.cells[0].innerText.trim() || row.cells[0].textContent.trim(),
      label: row.dataset.label,
      running: row.classList.contains("is-running"),
      total: row.cells[row.cells.length - 1].textContent.trim(),
      values: [...row.querySelectorAll("data")].map((data) => Number(data.value)),
      texts: [...row.querySelectorAll("data")].map((data) => data.textContent.trim()),
    }));
    return { series: heads.map((head) => ({ name: head.textContent.trim(), number: head.dataset.series })), bars };
  }

  draw() {
    const read = this.read();
    if (!read || !this.isConnected) return;
    this.data = read;
    const { series, bars } = read;
    const scale = this.getAttribute("measure") === "cost" ? 1e-9 : 1;
    const surface = colour("surface");
    const datasets = series.map((entity, place) => ({
      label: entity.name,
      data: bars.map((bar) => bar.values[place] * scale),
      backgroundColor: colour(`series-${entity.number}`),
      hoverBackgroundColor: colour(`series-${entity.number}`),
      borderColor: surface,
      hoverBorderColor: surface,
      borderWidth: { top: 1 },
      borderRadius: 0,
    }));
    const data = { labels: bars.map((bar) => bar.label), datasets };
    if (this.chart) {
      this.chart.data = data;
      Object.assign(this.chart.options.scales, this.scales());
      this.chart.update("none");
      if (this.shown != null) this.show(this.shown);
      return;
    }
    this.chart = new Chart(this.plot.querySelector("canvas"), {
      type: "bar",
      data,
      plugins: [ground],
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        onHover: (event, active) => this.show(active[0]?.index ?? null, "pointer"),
        font: { family: token("--font-text"), size: 12 },
        datasets: { bar: { categoryPercentage: 0.6, barPercentage: 1 } },
        plugins: { legend: { display: false }, tooltip: { enabled: false } },
        scales: this.scales(),
      },
    });
  }

  scales() {
    const font = { family: token("--font-text"), size: 12 };
    const running = ({ index }) => this.data.bars[index]?.running;
    const ink = colour("ink");
    const muted = colour("muted");
    return {
      x: {
        stacked: true,
        grid: { display: false },
        border: { color: colour("line-strong") },
        ticks: { maxRotation: 0, autoSkipPadding: 12, color: (tick) => (running(tick) ? ink : muted), font: (tick) => ({ ...font, weight: running(tick) ? 500 : 400 }) },
      },
      y: {
        stacked: true,
        beginAtZero: true,
        grid: { color: colour("line"), drawTicks: false },
        border: { display: false },
        ticks: { maxTicksLimit: 6, padding: 8, color: muted, font, precision: this.getAttribute("measure") === "cost" ? undefined : 0, callback: (value, place, ticks) => this.format(value, ticks) },
      },
    };
  }

  /** A tick of the y axis; amounts have as many decimals as the finest tick needs. */
  format(value, ticks) {
    const language = document.documentElement.lang;
    if (this.getAttribute("measure") !== "cost") return new Intl.NumberFormat(language, { notation: "compact" }).format(value);
    const finest = Math.max(...ticks.map((tick) => String(Number(tick.value.toPrecision(6))).split(".")[1]?.length ?? 0));
    const digits = finest && Math.max(finest, 2);
    return new Intl.NumberFormat(language, {
      style: "currency",
      currency: this.getAttribute("currency"),
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }).format(value);
  }

  move(event) {
    const last = this.data.bars.length - 1;
    const running = this.data.bars.findIndex((bar) => bar.running);
    const from = this.shown ?? (event.key === "ArrowLeft" ? last + 1 : -1);
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: running < 0 ? last : running, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.show(to === null ? null : Math.max(0, Math.min(last, to)), "keyboard");
  }

  /** Show the tip of one bar, or none; by the keyboard it is also spoken. */
  show(index, by) {
    if (!this.chart) return;
    this.shown = index;
    this.chart.options.shownIndex = index;
    this.chart.draw();
    this.tip.hidden = index == null;
    if (index == null) return;
    if (by === "keyboard") this.tip.setAttribute("role", "status");
    else if (by === "pointer") this.tip.removeAttribute("role");
    const { series, bars } = this.data;
    const bar = bars[index];
    const lines = series.map((entity, place) => ({ ...entity, value: bar.values[place], text: bar.texts[place] })).filter((line) => line.value || series.length === 1);
    this.tip.replaceChildren(part("p", "tip__head", bar.title.replace(/\n+/g, ", ")), ...lines.map(row), total(bar.total));
    this.place(index);
  }

  /** Beside the bar, on the side where there is room. */
  place(index) {
    const { chartArea, scales } = this.chart;
    const half = chartArea.width / this.data.bars.length / 2;
    const x = scales.x.getPixelForValue(index);
    const width = this.tip.offsetWidth;
    const room = this.plot.clientWidth;
    const left = x + half + 8 + width <= room ? x + half + 8 : x - half - 8 - width;
    this.tip.style.left = `${Math.max(0, Math.min(left, room - width))}px`;
  }
}

function part(name, className, text) {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function row(line) {
  const label = part("span", "labelled", line.name);
  label.prepend(part("i", `swatch series-${line.number}`, ""));
  const whole = part("p", "tip__row", "");
  whole.append(label, part("span", "", line.text));
  return whole;
}

function total(text) {
  const whole = part("p", "tip__row facts__total", "");
  whole.append(part("span", "", document.querySelector("usage-chart").dataset.total), part("span", "", text));
  return whole;
}

customElements.define("usage-chart", UsageChart);
