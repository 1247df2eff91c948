"use strict";

// Small images are text until they come near the screen.
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    for (const image of target.querySelectorAll("image[data-thumbnail]")) fill(image);
    seen.unobserve(target);
  }
}, { rootMargin: "600px" });

function fill(image) {
  const jpeg = document.getElementById("thumbnail-" + image.dataset.thumbnail).textContent;
  image.setAttribute("href", "data:image/jpeg;base64," + jpeg);
  delete image.dataset.thumbnail;
}

// Tables: a click on a head sorts by it, another turns the order round. Cells without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.firstElementChild?.addEventListener("click", () => {
      const wordy = [...table.tBodies[0].rows].some((row) => isNaN(row.cells[column]?.dataset.order ?? 0));
      const turned = head.ariaSort ? head.ariaSort === "ascending" : !wordy;
      heads.forEach((other) => { other.ariaSort = null; });
      head.ariaSort = turned ? "descending" : "ascending";
      sort(table.tBodies[0], column, wordy, turned);
    });
  });
}

function sort(body, column, wordy, turned) {
  const rows = [...body.rows].map((row) => ({ row, value: row.cells[column]?.dataset.order }));
  const known = rows.filter(({ value }) => value !== undefined);
  const unknown = rows.filter(({ value }) => value === undefined);
  known.sort((a, b) => (turned ? -1 : 1) * (wordy ? a.value.localeCompare(b.value) : a.value - b.value));
  body.append(...known.concat(unknown).map(({ row }) => row));
}

for (const field of document.querySelectorAll("[data-filter-rows]")) {
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of document.getElementById(field.dataset.filterRows).tBodies[0].rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });
}

// Lists of images: filters, an order, and some more on demand.
const lists = {};

for (const filters of document.querySelectorAll("[data-list]")) {
  const list = document.getElementById(filters.dataset.list);
  const cards = [...list.querySelectorAll("figure")];
  const step = Number(list.dataset.step);
  const more = document.querySelector(`[data-more="${list.id}"]`);
  const by = (name) => filters.querySelector(`[data-by="${name}"]`);
  const tabs = [...filters.querySelectorAll("[data-kind]")];
  let limit = step;

  function key(name) { return name.replace(/ (.)/g, (_, letter) => letter.toUpperCase()); }

  function fits(card) {
    const label = by("class").value;
    if (label && !card.dataset.labels.includes(` ${label} `)) return false;
    if (tabs.length) return card.dataset.kind === tabs.find((tab) => tab.ariaPressed === "true").dataset.kind;
    const kind = by("kind").value;
    if (kind && !(Number(card.dataset[key(kind)]) > 0)) return false;
    return card.dataset.text.toLowerCase().includes(by("text").value.trim().toLowerCase());
  }

  function show() {
    const fitting = cards.filter(fits);
    const order = by("order")?.value;
    if (order === "file") fitting.sort((a, b) => a.dataset.text.localeCompare(b.dataset.text));
    else if (order) fitting.sort((a, b) => b.dataset[key(order)] - a.dataset[key(order)]);
    list.append(...fitting);
    for (const card of cards) card.hidden = true;
    for (const card of fitting.slice(0, limit)) {
      card.hidden = false;
      seen.observe(card);
    }
    const number = Math.min(limit, fitting.length);
    filters.querySelector(".shown").textContent = `${number} of ${fitting.length}`;
    more.hidden = number === fitting.length;
    for (const meaning of tabs.length ? document.querySelectorAll("[data-explains]") : []) {
      meaning.hidden = meaning.dataset.explains !== tabs.find((tab) => tab.ariaPressed === "true").dataset.kind;
    }
  }

  function press(kind) {
    for (const tab of tabs) tab.ariaPressed = String(tab.dataset.kind === kind);
  }

  function restart() { limit = step; show(); }

  for (const field of filters.querySelectorAll("select, input")) field.addEventListener("input", restart);
  for (const tab of tabs) tab.addEventListener("click", () => { press(tab.dataset.kind); restart(); });
  more.addEventListener("click", () => { limit += step; show(); });
  lists[list.id] = {
    showClass(label) {
      by("class").value = label;
      const kinds = tabs.map((tab) => tab.dataset.kind);
      restart();
      // The first kind that has errors of this class.
      while (kinds.length && !cards.some(fits)) { press(kinds.shift()); restart(); }
    },
    showKind(kind) { press(kind); by("class").value = ""; restart(); },
  };
  show();
}

// A class opens below the table: the address ends with its number.
function openClass() {
  const place = document.getElementById("class-page");
  const page = /^#class-\d+$/.test(location.hash) && document.getElementById("page-" + location.hash.slice(7));
  place.replaceChildren(...(page ? [page.content.cloneNode(true)] : []));
  place.hidden = !page;
  if (page) place.scrollIntoView({ block: "start" });
}
addEventListener("hashchange", openClass);
openClass();

const large = document.getElementById("large");
document.addEventListener("click", ({ target }) => {
  if (target.closest("[data-close]")) {
    if (target.closest("dialog")) large.close();
    else location.hash = "#classes";
  } else if (target.closest("[data-go]")) {
    const { go, class: label } = target.closest("[data-go]").dataset;
    lists["list-" + go].showClass(label);
    document.getElementById(go).scrollIntoView();
  } else if (target.closest("[data-show-kind]")) {
    lists["list-gallery"].showKind(target.closest("[data-show-kind]").dataset.showKind);
  } else if (target.closest("svg.panel") && !target.closest("dialog")) {
    const copy = target.closest("svg.panel").cloneNode(true);
    for (const image of copy.querySelectorAll("image[data-thumbnail]")) fill(image);
    large.lastElementChild.replaceChildren(copy);
    large.showModal();
  } else if (target === large) {
    large.close();
  }
});
