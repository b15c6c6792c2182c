// The result side of Create: one job from the queue to the playing film. It asks the server how the job stands; closing the tab changes nothing.

import { showExamples } from "./examples.js";
import { animateStills, changesOf, elsewhere, extend, filmOf, isOpen, isShown, isVideo, leftWord, makeChanged, makeSmaller, motionWord, open, pathOf, pictureUrl, place, placeWord, shareOf, stageOf, stageWord, stepsWord, stillsOf, suffix, titleOf } from "./jobs_view.js";
import { patience } from "./patience.js";

export { place };

export function mount(element, page) {
  const { el, replace, say, server } = page;
  let job = null;
  let watched = null; // the job's id
  let timer = null;
  let furthest = { stage: 0, share: 0 };
  let drawn = "";
  let source = null; // the picture that it begins with, if it was given one
  let known = null; // of the job that is shown, once it has made something: the form that it would be
  const errors = patience(page);
  const media = el("div", { class: "sm-media" });
  const under = el("div", { class: "sm-under" });
  element.append(media, under);

  async function follow(id, { isNew = false } = {}) {
    clearTimeout(timer);
    if (watched !== id) {
      furthest = { stage: 0, share: 0 };
      if (!isNew || !job) media.dataset.key = "";
    }
    watched = id;
    if (!id) return draw(null);
    let wait = document.hidden ? 4000 : 700;
    let isFailed = false;
    try {
      const found = await server.get(pathOf({ id }));
      if (watched !== id) return;
      errors.answered();
      if (found.deleted) return gone();
      const before = job;
      job = found;
      if (before?.id === id && isOpen(before) && !isOpen(job)) ended();
      draw(job);
      learnSource(job);
    } catch (error) {
      if (watched !== id) return;
      if (error.status === 404) return gone();
      isFailed = true;
      const later = errors.failed(error);
      if (!server.lost) wait = later;
    }
    clearTimeout(timer);
    if (isFailed || isOpen(job)) timer = setTimeout(() => follow(id), wait);
    else learn(job);
  }

  // Of what is not there, or no longer, that is said; and there is a way back.
  function gone() {
    [watched, job, drawn] = [null, null, ""];
    title(null);
    element.dataset.job = "";
    media.dataset.key = "gone";
    const back = el("button", { class: "sm-button", "data-act": "back", on: { click: () => (page.show("create", { job: null }), begin()) } }, say("job.back"));
    replace(media, el("div", { class: "sm-film sm-blank sm-gone" }, el("p", { role: "alert" }, say("job.gone")), back));
    replace(under);
  }

  async function learnSource(shown) {
    if (!isOpen(shown) || shown.stages[0] === "still" || source?.id === shown.id) return;
    source = { id: shown.id, url: "" };
    const opened = await open(page, shown).catch(() => null);
    if (source.id !== shown.id || !opened?.values.image) return;
    source.url = pictureUrl(page, opened.values.image);
    if (watched === shown.id) draw(job);
  }

  // Which of its settings there are to be changed. Nobody misses the buttons of what cannot be opened.
  async function learn(shown) {
    if (shown.status !== "succeeded" || known?.id === shown.id) return;
    const opened = await open(page, shown).catch(() => null);
    if (!opened || watched !== shown.id) return;
    known = { id: shown.id, opened };
    draw(job);
  }

  function draw(shown) {
    title(shown);
    element.dataset.job = shown?.id ?? "";
    if (!shown) {
      drawn = "";
      media.dataset.key = "examples";
      showExamples(media, page);
      return replace(under);
    }
    drawMedia(shown);
    const signature = JSON.stringify([shown.id, shown.status, shown.place, shown.is_held, shown.progress, shown.remaining_seconds, shown.outputs.length, shown.is_favourite, shown.is_cancel_requested, known?.id === shown.id, page.language()]);
    if (signature === drawn) return;
    drawn = signature;
    const focus = document.activeElement?.closest("#sm-job [data-act]")?.dataset.act;
    replace(under, el("p", { class: "sm-title" }, titleOf(page, shown)), ...(isOpen(shown) ? progress(shown) : outcome(shown)));
    if (focus) under.querySelector(`[data-act="${focus}"]`)?.focus();
  }

  // The film, before it the still, before that a preview; the frame keeps its shape.
  function drawMedia(shown) {
    const film = filmOf(shown);
    const stills = stillsOf(shown);
    const preview = shown.progress?.preview;
    const given = source?.id === shown.id ? source.url : "";
    const key = film ? film.url : stills.length ? stills.map((one) => one.url).join() : preview ?? `${shown.id}:${shown.status}:${given || page.language()}`;
    if (media.dataset.key === key) return;
    media.dataset.key = key;
    if (film && isVideo(film)) {
      const video = el("video", { src: film.url, class: "sm-film", controls: true, loop: true, autoplay: true, playsinline: "", "aria-label": titleOf(page, shown) });
      video.muted = true;
      if (stills[0]) video.poster = stills[0].url;
      replace(media, video);
    } else if (film) replace(media, el("img", { src: film.url, class: "sm-film", alt: titleOf(page, shown) }));
    else if (stills.length > 1) replace(media, choose(shown, stills));
    else if (stills.length) replace(media, el("img", { src: stills[0].url, class: "sm-film", alt: titleOf(page, shown) }));
    else if (preview) showPreview(preview);
    else if (given && shown.status !== "failed") replace(media, el("img", { src: given, class: "sm-film", alt: titleOf(page, shown) }));
    else replace(media, el("div", { class: "sm-film sm-blank" }, shown.status === "failed" ? "" : el("span", {}, say(`status.${shown.status}`))));
  }

  // Once it is there: the job may have ended meanwhile, and the preview with it.
  function showPreview(address) {
    const picture = el("img", { class: "sm-film sm-preview", alt: "", on: { load: () => media.dataset.key === address && replace(media, picture) } });
    if (!media.querySelector("img.sm-preview")) replace(media, el("div", { class: "sm-film sm-blank" }));
    picture.src = address;
  }

  // Several stills: tick those that are to move.
  function choose(shown, stills) {
    const chosen = new Set();
    const button = el("button", { class: "sm-button sm-primary", disabled: true, on: { click: () => animate(shown, [...chosen]) } });
    const label = () => ((button.textContent = say("choose.animate", { count: chosen.size })), (button.disabled = !chosen.size));
    const cards = stills.map((still, index) => {
      const box = el("input", { type: "checkbox", "aria-label": say("choose.still", { number: index + 1 }), on: { change: () => (box.checked ? chosen.add(still) : chosen.delete(still), label()) } });
      return el("label", { class: "sm-choice" }, box, el("img", { src: still.url, alt: say("choose.still", { number: index + 1 }) }));
    });
    label();
    return el("div", { class: "sm-choices" }, ...cards, button);
  }

  async function animate(shown, stills) {
    try {
      const made = await animateStills(page, shown, stills);
      page.show("create", { job: made[0].id, isNew: true, count: made.length });
    } catch (error) {
      page.fail(error);
    }
  }

  function progress(shown) {
    const now = shown.progress;
    furthest.stage = stageOf(shown, furthest.stage);
    furthest.share = Math.max(furthest.share, shareOf(shown, furthest.stage));
    const steps = shown.stages.map((_, index) => el("li", { class: index < furthest.stage ? "sm-done" : index === furthest.stage && now ? "sm-now" : "" },
      stageWord(page, shown, index), index === furthest.stage && now ? el("span", { class: "sm-count" }, ` ${stepsWord(page, shown)}`.trimEnd()) : null));
    const waiting = shown.is_held ? say("queue.held") : shown.place === null ? "" : placeWord(page, shown.place);
    const left = leftWord(page, shown, shown.is_held ? "" : say("time.unknown"));
    const held = shown.is_held ? [el("button", { class: "sm-button", "data-act": "queue", on: { click: () => page.show("queue") } }, say("nav.queue"))] : [];
    return [
      el("ol", { class: "sm-steps" }, steps),
      el("div", { class: "sm-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": Math.round(furthest.share * 100), "aria-label": say("progress") }, el("i", { style: `width:${(furthest.share * 100).toFixed(1)}%` })),
      el("div", { class: "sm-row" }, el("span", { class: "sm-soft" }, [waiting, left].filter(Boolean).join(" · ")), el("span", { class: "sm-space" }), ...held,
        el("button", { class: "sm-button", "data-act": "cancel", disabled: shown.is_cancel_requested, on: { click: () => act(() => server.send("POST", `${pathOf(shown)}/cancel`)) } }, say(shown.is_cancel_requested ? "cancel.asked" : "cancel"))),
      ...shown.warnings.map((text) => el("p", { class: "sm-soft" }, page.sentence(text))),
    ];
  }

  function outcome(shown) {
    const button = (name, fn, more = "", title = null) => el("button", { class: `sm-button ${more}`, "data-act": name, title, on: { click: () => act(fn) } }, say(`act.${name}`));
    const path = pathOf(shown);
    if (shown.status === "canceled") return [el("p", {}, say(shown.started ? "status.canceled.long" : "status.canceled.waiting")), el("div", { class: "sm-row" }, button("retry", () => server.send("POST", `${path}/retry`)), button("remake", () => page.remake(shown.id)))];
    if (shown.status === "failed") {
      const error = shown.error;
      const smaller = error.code === "out_of_memory" ? [button("smaller", async () => opened(await makeSmaller(page, shown)), "sm-primary")] : [];
      return [
        el("p", { class: "sm-bad", role: "alert" }, page.sayError(error)),
        el("div", { class: "sm-row" }, ...smaller, button("retry", () => server.send("POST", `${path}/retry`)), button("remake", () => page.remake(shown.id))),
        el("details", {}, el("summary", {}, say("details")), el("code", {}, [error.code, error.node && `node ${error.node}`, error.id].filter(Boolean).join(" · "))),
      ];
    }
    const film = filmOf(shown);
    const files = shown.outputs.filter((one) => one.type === "output" && (isShown(one) || suffix(one) === "json"));
    const names = { json: say("file.settings") };
    const alike = (one) => files.filter((other) => suffix(other) === suffix(one));
    const numberOf = (one) => (alike(one).length > 1 ? `${alike(one).indexOf(one) + 1} ` : "");
    const downloads = files.map((one) => el("a", { class: "sm-button sm-quiet", href: one.url, download: one.filename }, `${names[suffix(one)] ?? suffix(one).toUpperCase()} ${numberOf(one)}`, el("small", {}, page.bytes(one.bytes))));
    const again = [
      button("again", async () => opened(await server.send("POST", `${path}/duplicate`, { new_seeds: true }))),
      ...(film ? [...changes(shown, button), button("extend", () => extend(page, shown, film))] : []),
      ...(!film && stillsOf(shown).length === 1 ? [button("animate", () => animate(shown, stillsOf(shown)), "sm-primary")] : []),
      button("remake", () => page.remake(shown.id)),
    ];
    return [
      el("div", { class: "sm-row sm-files" }, downloads),
      el("div", { class: "sm-row sm-again" }, again),
      elsewhere(page, shown),
      el("p", { class: "sm-soft" }, say("made.in", { time: page.seconds(shown.run_seconds) }), shown.cached.length ? ` · ${say("made.reused")}` : ""),
      ...shown.warnings.map((text) => el("p", { class: "sm-soft" }, page.sentence(text))),
    ];
  }

  // The same film with something changed, where it has such a thing: what stays the same is taken from what is known.
  function changes(shown, button) {
    if (known?.id !== shown.id) return [];
    return changesOf(known.opened).map(([name, change]) => button(name, async () => opened(await makeChanged(page, shown, known.opened, change)), "", motionWord(page, known.opened, change)));
  }

  const opened = (made) => made && page.show("create", { job: made.id, isNew: true });

  async function act(fn) {
    try {
      await fn();
      if (watched) follow(watched);
    } catch (error) {
      page.fail(error);
    }
  }

  function ended() {
    page.recount();
    if (document.hidden) document.title = `✓ ${say(`status.${job.status}`)} · Stillmotion`;
    if (localStorage.getItem("stillmotion.sound") === "on") chime();
  }

  function title(shown) {
    if (shown && isOpen(shown)) {
      const share = Math.round(furthest.share * 100);
      document.title = `${share ? `${share} % · ` : ""}${say(`status.${shown.status}`)} · Stillmotion`;
    } else if (!document.hidden) document.title = "Stillmotion";
  }

  // A phone shows it below the form; on a desk an unfolded form is longer than the window.
  function isSeen() {
    const { top, bottom } = media.getBoundingClientRect();
    return !matchMedia("(max-width: 760px)").matches && bottom > 120 && top < innerHeight - 120;
  }

  page.onView((view, { job: id, isNew, count }) => {
    if (view !== "create") return;
    if (count > 1) page.toast(say("queue.more", { count: count - 1 }), { undo: () => page.show("queue"), undoText: say("nav.queue") });
    if (id && id !== watched) {
      follow(id, { isNew });
      if (isNew && !isSeen()) element.scrollIntoView({ behavior: "smooth" });
    } else if (id) follow(id);
    else if (id === null) follow(null);
  });
  page.onLanguage(() => media.dataset.key === "gone" ? gone() : ((drawn = ""), (media.dataset.key = media.dataset.key === "examples" ? "" : media.dataset.key), draw(job)));
  document.addEventListener("visibilitychange", () => !document.hidden && (watched ? follow(watched) : title(job)));
  begin();

  // Another device, a new tab: what runs is shown.
  async function begin() {
    if (new URL(location.href).searchParams.get("job")) return;
    const open = await server.get("api/line?limit=20").catch(() => ({ jobs: [] }));
    const mine = open.jobs.find((one) => one.owner === page.user());
    if (watched) return;
    if (!mine) draw(null);
    else if (page.view === "create") page.show("create", { job: mine.id, isKept: true });
    else follow(mine.id);
  }
}

function chime() {
  const context = new AudioContext();
  const tone = context.createOscillator();
  const loudness = context.createGain();
  tone.frequency.value = 660;
  loudness.gain.setValueAtTime(0.08, context.currentTime);
  loudness.gain.exponentialRampToValueAtTime(0.0001, context.currentTime + 0.6);
  tone.connect(loudness).connect(context.destination);
  tone.start();
  tone.stop(context.currentTime + 0.6);
  tone.addEventListener("ended", () => context.close()); // browsers allow only so many
}
