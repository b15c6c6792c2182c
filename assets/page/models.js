// Models: what is there and what it serves, what is missing and where it goes, and downloads, which only begin when somebody says so.

const KINDS = ["still", "motion", "vae", "lora"];
const ACTIVE = ["waiting", "checking", "running"];
const FOLDERS = ["checkpoints", "vae", "loras"];

export function mount(element, page) {
  const { el, replace, say, server } = page;
  let found = null; // what the server says of models
  let downloads = [];
  let asking = ""; // the model whose download waits for a yes
  let timer = null;
  let round = 0;
  const drawn = new Map();
  const parts = Object.fromEntries(["lead", "downloads", "missing", "kinds", "more"].map((name) => [name, el("div", { class: `sm-models-${name}` })]));
  const form = makeForm();
  element.append(...Object.values(parts));

  const isShown = () => page.view === "models" && !document.hidden;

  async function look() {
    clearTimeout(timer);
    if (!isShown()) return;
    const mine = ++round;
    try {
      const before = downloads.filter((one) => ACTIVE.includes(one.state)).map((one) => one.id);
      ({ downloads } = await server.get("api/models/downloads"));
      const hasEnded = downloads.some((one) => before.includes(one.id) && !ACTIVE.includes(one.state));
      const isWorking = downloads.some((one) => ACTIVE.includes(one.state));
      if (!found || hasEnded || !isWorking || mine % 5 === 0) found = await server.get("api/models/files");
      draw();
    } catch (error) {
      if (!found) page.fail(error);
    }
    clearTimeout(timer);
    if (mine === round) timer = setTimeout(look, downloads.some((one) => ACTIVE.includes(one.state)) ? 1000 : 4000);
  }

  function draw() {
    if (!found) return;
    part("lead", [found.folders, found.is_offline, found.can_download], drawLead);
    part("downloads", [downloads], drawDownloads);
    part("missing", [found.templates, found.known, asking, names(), broken()], drawMissing);
    part("kinds", [found.models, found.known, asking, names(), broken(), found.can_download, found.is_offline], drawKinds);
    part("more", [found.can_download && !found.is_offline], () => (found.can_download && !found.is_offline ? [form] : []));
  }

  // Only what has changed is drawn again, and whoever was on a button stays there.
  function part(name, data, fn) {
    const signature = JSON.stringify([page.language(), data]);
    if (drawn.get(name) === signature) return;
    drawn.set(name, signature);
    const focus = parts[name].contains(document.activeElement) ? document.activeElement.dataset.key : null;
    replace(parts[name], ...fn());
    if (focus) parts[name].querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  }

  // Those that are being fetched have cards of their own; of what went wrong the model's card tells.
  const names = () => downloads.filter((one) => ACTIVE.includes(one.state)).map((one) => one.name);
  const brokenOff = (name) => downloads.find((one) => one.name === name && ["failed", "canceled"].includes(one.state));
  const broken = () => downloads.filter((one) => one.state !== "done" && !ACTIVE.includes(one.state));

  function drawLead() {
    const places = FOLDERS.map((folder) => el("li", {}, el("span", { class: "sm-soft" }, say(`models.folder.${folder}`)), el("code", {}, found.folders[folder])));
    return [
      el("h2", {}, say("nav.models")),
      el("p", { class: "sm-soft" }, say("models.drop")),
      el("ul", { class: "sm-folders" }, places),
      found.is_offline ? el("p", { class: "sm-soft" }, say("models.offline")) : null,
    ].filter(Boolean);
  }

  function drawDownloads() {
    if (!downloads.length) return [];
    return [el("h3", {}, say("models.downloads")), el("div", { class: "sm-models-grid" }, downloads.map(drawDownload))];
  }

  function drawDownload(one) {
    const isActive = ACTIVE.includes(one.state);
    const share = one.total_bytes ? Math.floor((100 * one.bytes) / one.total_bytes) : 0;
    const amount = one.total_bytes ? say("models.of", { part: page.bytes(one.bytes), all: page.bytes(one.total_bytes) }) : "";
    const speed = one.bytes_per_second ? say("models.speed", { speed: page.bytes(one.bytes_per_second) }) : "";
    const left = one.remaining_seconds === null ? "" : say("time.left", { time: page.seconds(one.remaining_seconds) });
    const state = one.state === "running" ? "" : say(`models.download.${one.state}`);
    const bar = one.state === "done" ? null : el("div", { class: "sm-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": share, "aria-label": one.name }, el("i", { style: `width:${share}%` }));
    return el("article", { class: "sm-card" },
      el("strong", {}, one.name),
      el("span", { class: "sm-soft" }, `${one.repo} → models/${one.folder}`),
      bar,
      el("p", { class: "sm-soft sm-models-numbers" }, [state, amount, isActive && speed, isActive && left].filter(Boolean).join(" · ")),
      one.error ? el("p", { class: "sm-bad", role: "alert" }, page.sayError(one.error)) : null,
      found?.can_download ? el("div", { class: "sm-row" }, downloadButtons(one, isActive)) : null);
  }

  function downloadButtons(one, isActive, of = one.name) {
    const path = `api/models/downloads/${encodeURIComponent(one.id)}`;
    const remove = (whole) => act(() => server.send("DELETE", `${path}${whole ? "?delete_part=true" : ""}`));
    if (isActive) return [button(`cancel:${one.id}`, say("cancel"), one.name, () => remove(false))];
    if (one.state === "done") return [button(`close:${one.id}`, say("models.clear"), one.name, () => remove(false))];
    return [
      button(`resume:${one.id}:${of}`, say(one.bytes ? "models.resume" : "act.retry"), of, () => act(() => server.send("POST", `${path}/resume`)), "sm-primary"),
      button(`forget:${one.id}:${of}`, say("models.forget"), of, () => remove(true), "sm-quiet"),
    ];
  }

  // What a template names and is not there.
  function drawMissing() {
    const lacking = found.templates.flatMap((template) => template.missing.map((one) => ({ ...one, template })));
    if (!lacking.length) return [];
    const cards = lacking.map((one) => {
      const known = found.known.find((other) => other.id === one.known);
      return el("article", { class: "sm-card sm-models-lacking" },
        el("strong", {}, page.sayOf(one.template.title)),
        el("p", {}, say("models.needs", { name: one.name })),
        el("p", { class: "sm-soft" }, say("models.put"), " ", el("code", {}, realPath(one))),
        one.nearest ? el("p", { class: "sm-soft" }, say("models.nearest", { name: one.nearest })) : null,
        known ? offer(known, `missing:${one.template.id}:${one.node}`) : null);
    });
    return [el("h3", {}, say("models.missing")), el("div", { class: "sm-models-grid" }, cards)];
  }

  function drawKinds() {
    const sections = KINDS.map((kind) => {
      const there = found.models.filter((one) => one.kind === kind && one.state !== "downloading");
      const known = found.known.filter((one) => one.kind === kind && (one.state === "missing" || brokenOff(one.name)) && !names().includes(one.name));
      const folder = found.folders[kind === "vae" ? "vae" : kind === "lora" ? "loras" : "checkpoints"];
      const cards = [...there.map(drawModel), ...known.map(drawKnown)];
      const content = cards.length ? el("div", { class: "sm-models-grid" }, cards) : el("p", { class: "sm-empty" }, say("models.empty"), " ", el("code", {}, folder));
      return el("section", { "aria-label": say(`models.kind.${kind}`) }, el("h3", {}, say(`models.kind.${kind}`)), content);
    });
    const strange = found.models.filter((one) => !KINDS.includes(one.kind) && one.state !== "downloading");
    if (strange.length) sections.push(el("section", {}, el("h3", {}, say("models.kind.other")), el("div", { class: "sm-models-grid" }, strange.map(drawModel))));
    return sections;
  }

  function drawModel(one) {
    const isWhole = one.state === "complete";
    const titles = found.templates.filter((template) => one.serves.includes(template.id)).map((template) => page.sayOf(template.title));
    return el("article", { class: "sm-card" },
      el("strong", {}, one.title || one.name),
      el("code", { class: "sm-soft" }, `${one.folder}/${one.name}`),
      el("p", {}, el("span", { class: isWhole ? "sm-good" : "sm-bad" }, say(`models.state.${one.state}`)), el("span", { class: "sm-soft" }, ` · ${page.bytes(one.bytes)}${one.is_bundled ? ` · ${say("models.bundled")}` : ""}`)),
      isWhole ? null : el("p", { class: "sm-soft" }, page.sayError({ message: one.problem, hint: one.hint })),
      titles.length ? el("p", { class: "sm-soft" }, say("models.serves", { names: titles.join(page.language() === "zh" ? "、" : ", ") })) : null);
  }

  function drawKnown(one) {
    return el("article", { class: "sm-card sm-models-ghost" },
      el("strong", {}, one.title),
      el("code", { class: "sm-soft" }, `${one.folder}/${one.name}`),
      el("p", { class: "sm-soft" }, page.sayOf(one.about)),
      el("p", { class: "sm-soft" }, facts(one)),
      offer(one, `known:${one.id}`));
  }

  const facts = (one) => [say("models.about", { size: page.bytes(one.about_bytes) }), say("models.licence", { name: one.licence }), one.is_gated ? say("models.gated") : ""].filter(Boolean).join(" · ");
  const realPath = (one) => `${found.folders[one.folder]}/${one.name}`;
  const hubPage = (one) => `${found.endpoint.replace(/\/$/, "")}/${one.repo}`;

  // One question before the first byte: how much, under which licence, where to.
  function offer(one, key) {
    const link = el("a", { class: "sm-button sm-quiet", href: hubPage(one), target: "_blank", rel: "noreferrer", title: one.repo, "aria-label": `${say("models.page")}: ${one.repo}` }, say("models.page"));
    if (names().includes(one.name)) return null;
    const mayFetch = found.can_download && !found.is_offline;
    const before = brokenOff(one.name);
    if (before) return el("div", { class: "sm-models-question" }, wentWrong(before), el("div", { class: "sm-row" }, mayFetch ? downloadButtons(before, false, one.title) : null, link));
    if (!mayFetch) return el("div", { class: "sm-row" }, link);
    if (asking !== key) return el("div", { class: "sm-row" }, button(key, say("models.download"), one.title, () => ask(key)), link);
    return el("div", { class: "sm-models-question", role: "group", "aria-label": say("models.download") },
      el("p", {}, say("models.sure", { size: page.bytes(one.about_bytes), licence: one.licence, path: realPath(one) }), one.is_gated ? ` ${say("models.gated.how", { address: hubPage(one) })}` : ""),
      el("div", { class: "sm-row" },
        button(key, say("models.yes"), one.title, () => act(() => server.send("POST", "api/models/downloads", { model: one.id })), "sm-primary"),
        button(`no:${key}`, say("models.no"), one.title, () => ask(""), "sm-quiet")));
  }

  const wentWrong = (one) => el("p", { class: one.error ? "sm-bad" : "sm-soft" }, one.error ? page.sayError(one.error) : say(`models.download.${one.state}`));

  // Any other file of the hub. It is drawn once, so that what is typed stays.
  function makeForm() {
    const line = (name, more = {}) => el("input", { class: "sm-input", name, required: true, autocomplete: "off", spellcheck: "false", ...more });
    const repo = line("repo", { placeholder: "owner/name" });
    const file = line("file", { placeholder: "model.safetensors", pattern: ".+\\.safetensors" });
    const folder = el("select", { class: "sm-input", name: "folder" }, FOLDERS.map((one) => el("option", { value: one }, one)));
    const labels = [repo, file, folder].map((input) => el("label", {}, el("span", { class: "sm-soft" }), input));
    const send = el("button", { class: "sm-button", type: "submit" });
    const summary = el("summary", {});
    const note = el("p", { class: "sm-soft" });
    const made = el("form", { class: "sm-row", on: { submit: submit } }, labels, send);
    const words = () => {
      [summary.textContent, note.textContent, send.textContent] = [say("models.other"), say("models.other.note"), say("models.download")];
      ["models.other.repo", "models.other.file", "models.other.folder"].forEach((key, index) => (labels[index].firstChild.textContent = say(key)));
    };
    async function submit(event) {
      event.preventDefault();
      const isTaken = await act(() => server.send("POST", "api/models/downloads", { repo: repo.value.trim(), file: file.value.trim(), folder: folder.value }));
      if (isTaken) made.reset();
    }
    words();
    page.onLanguage(words);
    return el("details", { class: "sm-fold" }, summary, note, made);
  }

  const button = (key, text, of, fn, more = "") => el("button", { class: `sm-button ${more}`, type: "button", "data-key": key, "aria-label": `${text}: ${of}`, on: { click: fn } }, text);

  function ask(key) {
    const before = asking;
    asking = key;
    draw();
    element.querySelector(`[data-key="${CSS.escape(key || before)}"]`)?.focus();
  }

  async function act(fn) {
    try {
      await fn();
      asking = "";
      found = null; // what is there may have changed
      await look();
      return true;
    } catch (error) {
      page.fail(error);
      return false;
    }
  }

  page.onView(() => look());
  page.onLanguage(() => draw());
  document.addEventListener("visibilitychange", () => look());
}
