"use strict";
(() => {
  const page = document.documentElement;
  const { figures, tables, charts } = JSON.parse(document.getElementById("content").textContent);
  const views = new Map();
  const boxes = [...document.querySelectorAll("figure[data-figure]")];
  page.dataset.figures = boxes.length;
  page.dataset.drawn = 0;

  const rows = (columns) => {
    const names = Object.keys(columns);
    return (columns[names[0]] ?? []).map((_, at) => Object.fromEntries(names.map((name) => [name, columns[name][at]])));
  };

  const specification = (figure, bare) => {
    const found = structuredClone(charts[figure.kind]);
    found.datasets = Object.fromEntries(Object.entries(figure.data).map(([name, at]) => [name, rows(tables[at])]));
    found.params = [...(found.params ?? []), ...Object.entries(figure.values).map(([name, value]) => ({ name, value }))];
    if (figure.height) found.height = figure.height;
    if (bare) found.config = { ...found.config, legend: { disable: true } };
    return found;
  };

  // Expressions are interpreted, so that the page need not allow eval.
  // Vega-Lite warns of a width to fit where rows have a height each, so Vega is told.
  const patch = (content) => ({ ...content, autosize: { type: "fit-x", contains: "padding" } });
  const embed = (place, content) => vegaEmbed(place, content, { actions: false, patch, ast: true, logLevel: 1, renderer: "svg" });

  const width = (box) => {
    const chart = box.querySelector(".chart");
    if (chart.clientWidth) return chart.clientWidth;
    const whole = document.querySelector("main").clientWidth - 130;
    return box.classList.contains("half") && window.innerWidth > 760 ? (whole - 40) / 2 : whole;
  };

  const draw = async (box) => {
    const content = specification(figures[box.dataset.figure], box.closest("[data-bare]"));
    const { view } = await embed(box.querySelector(".chart"), { ...content, width: width(box) });
    views.set(box, view);
    page.dataset.drawn = views.size;
  };

  const fit = (box) => {
    const view = views.get(box);
    if (view && Math.abs(view.width() - width(box)) > 1) view.width(width(box)).run();
  };

  const pause = () => new Promise((done) => ("requestIdleCallback" in window ? requestIdleCallback(done, { timeout: 200 }) : setTimeout(done)));
  const drawing = (async () => {
    const folded = (box) => (box.closest("details") ? 1 : 0);
    for (const box of [...boxes].sort((one, other) => folded(one) - folded(other))) {
      if (!views.has(box)) await draw(box);
      if (folded(box)) await pause();
    }
  })();
  drawing.catch((error) => console.error(error));

  let waiting = 0;
  new ResizeObserver(() => {
    clearTimeout(waiting);
    waiting = setTimeout(() => boxes.filter((box) => box.offsetParent).forEach(fit), 120);
  }).observe(document.querySelector("main"));
  for (const one of document.querySelectorAll("details")) {
    one.addEventListener("toggle", () => one.open && one.querySelectorAll("figure[data-figure]").forEach(fit));
  }

  const wrapped = (text, most) =>
    text.split(" ").reduce((lines, word) => {
      const last = lines[lines.length - 1];
      if (last && `${last} ${word}`.length <= most) lines[lines.length - 1] = `${last} ${word}`;
      else lines.push(word);
      return lines;
    }, []);

  const save = async (box) => {
    const figure = figures[box.dataset.figure];
    const title = { text: wrapped(figure.title, 80), subtitle: figure.heading || document.querySelector("header .of").textContent };
    const { view } = await embed(document.createElement("div"), { ...specification(figure), width: 640, title });
    const address = URL.createObjectURL(new Blob([await view.toSVG()], { type: "image/svg+xml" }));
    view.finalize();
    const name = [figure.heading, figure.kind].filter(Boolean).join("-").replace(/[^\w.-]+/g, "_");
    Object.assign(document.createElement("a"), { href: address, download: `${name}.svg` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };
  for (const box of boxes) box.querySelector("button.svg").addEventListener("click", () => save(box));

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) =>
      head.firstElementChild.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((one) => one.setAttribute("aria-sort", one === head ? (down ? "descending" : "ascending") : "none"));
        const value = (row) => row.cells[column].dataset.value;
        const order = (one, other) => {
          const [a, b] = [value(one), value(other)];
          if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what has no value stands last
          const numbers = a !== "" && b !== "" && !isNaN(a) && !isNaN(b);
          return (down ? -1 : 1) * (numbers ? a - b : a.localeCompare(b));
        };
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
      }),
    );
  }

  const links = new Map([...document.querySelectorAll("nav li a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
    },
    { rootMargin: "-20% 0px -70% 0px" },
  );
  document.querySelectorAll("section").forEach((section) => seen.observe(section));

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => (one.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((one) => (one.open = false)));
})();
