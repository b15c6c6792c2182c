// Posters in even rows, by day. Only one film plays: the one under the pointer, the one that was tapped, or the one that has the focus.

import { filmOf, posterOf, titleOf } from "./jobs_view.js";
import { shownOf, stopped } from "./library_parts.js";

const HOVER = 150;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function grid(page, list, hooks) {
  const { el, replace, say } = page;
  const tiles = new Map(); // job id -> its tile
  const days = new Map(); // day -> its row of posters
  let playing = null;
  let waiting = null;
  let pointer = "mouse";
  let column = null; // where moves up and down began
  const leaves = new IntersectionObserver((seen) => seen.some((one) => !one.isIntersecting && one.target === playing?.tile) && stop());

  function play(tile, job) {
    if (playing?.tile === tile || !filmOf(job)) return;
    stop();
    const media = shownOf(page, job, { autoplay: true, "aria-hidden": "true", tabindex: "-1" });
    media.classList.add("sm-poster-film");
    tile.querySelector(".sm-poster").append(media);
    playing = { tile, media };
    leaves.observe(tile);
  }

  function stop() {
    clearTimeout(waiting);
    if (!playing) return;
    leaves.unobserve(playing.tile);
    stopped(playing.media);
    playing = null;
  }

  function tileOf(job) {
    const tile = el("li", { class: "sm-tile", "data-job": job.id });
    const poster = posterOf(job, 480);
    const open = el("button", { class: "sm-poster", "aria-label": say(filmOf(job) ? "library.open.film" : "library.open.still", { title: titleOf(page, job) }), on: {
      click: () => (pointer === "touch" && filmOf(job) && playing?.tile !== tile ? play(tile, job) : hooks.open(job)),
      pointerdown: (event) => (pointer = event.pointerType),
      keydown: () => (pointer = "keyboard"),
      pointerenter: (event) => {
        if (event.pointerType !== "mouse" || calm.matches) return;
        clearTimeout(waiting);
        waiting = setTimeout(() => play(tile, job), HOVER);
      },
      pointerleave: (event) => event.pointerType === "mouse" && stop(),
      focus: (event) => event.target.matches(":focus-visible") && !calm.matches && play(tile, job),
      blur: () => playing?.tile === tile && pointer !== "touch" && stop(),
    } }, poster ? el("img", { src: poster, alt: "", loading: "lazy", decoding: "async" }) : el("span", { class: "sm-blank" }, "▶"),
      filmOf(job) ? el("span", { class: "sm-kind", "aria-hidden": "true" }, "▶") : null);
    const box = el("input", { type: "checkbox", "aria-label": say("library.choose", { title: titleOf(page, job) }), on: { change: (event) => hooks.choose([job], event.target.checked) } });
    const star = el("button", { class: "sm-star", "aria-label": say("library.favourite"), on: { click: () => hooks.favourite(job) } });
    tile.append(open, el("label", { class: "sm-choose" }, box), star, el("span", { class: "sm-caption", title: titleOf(page, job) }, titleOf(page, job)), el("span", { class: "sm-when sm-soft" }, timeOf(job, page.language())));
    tiles.set(job.id, tile);
    update(job);
    return tile;
  }

  function update(job) {
    const tile = tiles.get(job.id);
    if (!tile) return;
    const isChosen = hooks.chosen(job);
    tile.classList.toggle("sm-is-chosen", isChosen);
    tile.querySelector("input").checked = isChosen;
    const star = tile.querySelector(".sm-star");
    star.setAttribute("aria-pressed", String(job.is_favourite));
    replace(star, job.is_favourite ? "★" : "☆");
  }

  // The row of a day. New days come at the end, or with `isFirst` at the beginning.
  function rowOf(job, isFirst) {
    const made = new Date(job.created);
    const day = `${made.getFullYear()}-${made.getMonth()}-${made.getDate()}`;
    if (!days.has(day)) {
      const row = el("ul", { class: "sm-posters" });
      const all = () => [...row.children].filter((tile) => !tile.hidden).map((tile) => hooks.known(tile.dataset.job));
      const choose = el("button", { class: "sm-button sm-quiet", on: { click: () => hooks.choose(all(), !all().every(hooks.chosen)) } }, say("library.choose.day"));
      const section = el("section", { class: "sm-day" }, el("div", { class: "sm-row" }, el("h3", {}, dayName(made, page.language())), choose), row);
      if (isFirst) list.prepend(section);
      else list.append(section);
      days.set(day, row);
    }
    return days.get(day);
  }

  const append = (jobs) => jobs.forEach((job) => rowOf(job, false).append(tileOf(job)));
  const isHidden = (job) => tiles.get(job.id)?.hidden ?? true;

  function clear() {
    stop();
    [tiles, days].forEach((map) => map.clear());
    replace(list);
  }

  list.addEventListener("keydown", (event) => {
    const tile = event.target.closest(".sm-tile");
    const job = tile && hooks.known(tile.dataset.job);
    if (!job || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      ArrowRight: () => move(tile, 1), ArrowLeft: () => move(tile, -1), ArrowDown: () => moveRow(tile, 1), ArrowUp: () => moveRow(tile, -1),
      x: () => hooks.choose([job], !hooks.chosen(job)), f: () => hooks.favourite(job),
      Delete: () => {
        if (!move(tile, 1)) move(tile, -1);
        hooks.remove([job]);
      },
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  });

  const visible = () => [...list.querySelectorAll(".sm-tile:not([hidden])")];

  function move(tile, by) {
    const all = visible();
    const next = all[all.indexOf(tile) + by];
    next?.querySelector(".sm-poster").focus();
    next?.scrollIntoView({ block: "nearest" });
    return Boolean(next);
  }

  // The nearest of the next row that begins further down, or further up. Who passes a short row comes back to the column where he began.
  function moveRow(tile, by) {
    const { left: here, top } = tile.getBoundingClientRect();
    const left = column?.tile === tile ? column.left : here;
    const boxes = visible().map((one) => [one, one.getBoundingClientRect()]).filter(([, box]) => (box.top - top) * by > 4);
    const row = by > 0 ? Math.min(...boxes.map(([, box]) => box.top)) : Math.max(...boxes.map(([, box]) => box.top));
    const [nearest] = boxes.filter(([, box]) => Math.abs(box.top - row) < 4).sort((one, other) => Math.abs(one[1].left - left) - Math.abs(other[1].left - left));
    if (!nearest) return;
    column = { tile: nearest[0], left };
    nearest[0].querySelector(".sm-poster").focus();
    nearest[0].scrollIntoView({ block: "nearest" });
  }

  return {
    append, clear, update, stop, isHidden,
    prepend: (jobs) => [...jobs].reverse().forEach((job) => rowOf(job, true).prepend(tileOf(job))),
    hide: (jobs, hidden) => jobs.forEach((job) => tiles.has(job.id) && (tiles.get(job.id).hidden = hidden)),
    focus: (job) => tiles.get(job.id)?.querySelector(".sm-poster").focus({ preventScroll: true }),
    redraw(jobs) {
      const hidden = new Set(jobs.filter(isHidden).map((job) => job.id));
      clear();
      append(jobs);
      hidden.forEach((id) => (tiles.get(id).hidden = true));
    },
  };
}

const timeOf = (job, language) => new Intl.DateTimeFormat(language, { timeStyle: "short" }).format(new Date(job.created));

function dayName(day, language) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const ago = Math.round((midnight - new Date(day.getFullYear(), day.getMonth(), day.getDate())) / 86400000);
  if (ago === 0 || ago === 1) return new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(-ago, "day");
  return new Intl.DateTimeFormat(language, { dateStyle: "full" }).format(day);
}
